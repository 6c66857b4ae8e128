"""Open-loop load: requests leave by the clock, whatever the replies do; a process of its own, on the load's core.

One line of JSON in: port, files with whole requests, rate, seconds. One out: what came of them.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from nomadserve.operations.load.connection import Connection

CONNECTIONS_MAX = 1000
PATIENCE_S = 30.0
OK = 200


@dataclass
class Counts:
    """What became of the requests; latencies in seconds, from when each was due."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    not_sent: int = 0
    last_answer_at: float = 0.0

    def add(self, result: int | str, latency_s: float) -> None:
        """One reply, or a word for why there is none."""
        if result == OK:
            self.answered.append(latency_s)
            self.last_answer_at = time.perf_counter()
        elif result in (429, 503):
            self.refused.append(latency_s)
        else:
            self.failed[str(result)] = self.failed.get(str(result), 0) + 1

    def as_json(self) -> dict[str, Any]:
        """Counts and percentiles."""
        return {
            "answered": len(self.answered),
            "refused": len(self.refused),
            "failed": self.failed,
            "not_sent": self.not_sent,
            "p50_ms": _percentile_ms(self.answered, 50),
            "p99_ms": _percentile_ms(self.answered, 99),
            "refused_p50_ms": _percentile_ms(self.refused, 50),
            "refused_p99_ms": _percentile_ms(self.refused, 99),
        }


class OpenLoop:
    """Sends over as many connections as it takes, up to a limit; past that a request counts as not sent."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self.counts = Counts()
        self._port = port
        self._requests = cycle(requests)
        self._idle: list[Connection] = []
        self.started_at = 0.0
        self._opened = 0
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, rate: float, seconds: float) -> None:
        """Send for so long, then wait for what is under way."""
        self.started_at = started_at = time.perf_counter()
        for number in range(round(rate * seconds)):
            due_at = started_at + number / rate
            while (early_s := due_at - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            self._send(due_at)
            if number % 16 == 0:  # where it runs behind the clock, replies must still be read
                await asyncio.sleep(0)
        give_up_at = time.perf_counter() + PATIENCE_S
        while self._under_way and time.perf_counter() < give_up_at:
            await asyncio.sleep(0.02)
        if self._under_way:
            self.counts.failed["no reply"] = self._under_way

    def _send(self, due_at: float) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                self._ask(connection, due_at)
                return
            self._opened -= 1
        if self._opened >= CONNECTIONS_MAX:
            self.counts.not_sent += 1
            return
        self._opened += 1
        self._under_way += 1
        task = asyncio.create_task(self._connect(due_at))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, due_at: float) -> None:
        self._under_way -= 1
        try:
            _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self._port)
        except OSError as error:
            self._opened -= 1
            self.counts.add(type(error).__name__, 0)
            return
        self._ask(connection, due_at)

    def _ask(self, connection: Connection, due_at: float) -> None:
        self._under_way += 1

        def answered(result: int | str) -> None:
            self._under_way -= 1
            self.counts.add(result, time.perf_counter() - due_at)
            if connection.is_open:
                self._idle.append(connection)
            else:
                self._opened -= 1

        connection.ask(next(self._requests), answered)


def _percentile_ms(latencies_s: list[float], percent: float) -> float:
    if not latencies_s:
        return 0.0
    ordered = sorted(latencies_s)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1e3


def main() -> None:
    """One load."""
    wanted = json.loads(sys.stdin.readline())
    loop = OpenLoop(wanted["port"], [Path(path).read_bytes() for path in wanted["requests"]])
    asyncio.run(loop.run(wanted["rate"], wanted["seconds"]))
    print(json.dumps(loop.counts.as_json() | {"lasted_s": loop.counts.last_answer_at - loop.started_at}))


if __name__ == "__main__":
    main()
