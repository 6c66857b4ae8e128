"""Open-loop load: requests leave by the clock, whatever the replies do; a process of its own, on the load's core.

One line of JSON in: port, files with whole requests, seconds, and a rate; in the place of a rate, a number of
connections that ask again as soon as they are answered: that finds the capacity. One line out: what came of them.
"""

import asyncio
import json
import re
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

# How long nomadserve said that this request would take at most, in milliseconds.
_PREDICTED = re.compile(rb"\r\nserver-timing:[^\r]*[ ,]predicted;dur=([0-9.]+)", re.IGNORECASE)


@dataclass
class Counts:
    """What became of the requests; latencies in seconds, from when each was due.

    Attributes:
        over_predicted: of answers whose server told beforehand how long they would take: the latency over that.
    """

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    over_predicted: list[float] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    not_sent: int = 0
    last_answer_at: float = 0.0

    def add(self, result: int | str, latency_s: float, predicted_s: float | None = None) -> None:
        """One reply, or a word for why there is none."""
        if result == OK:
            self.answered.append(latency_s)
            self.last_answer_at = time.perf_counter()
            if predicted_s:
                self.over_predicted.append(latency_s / predicted_s)
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
            "predicted": len(self.over_predicted),
            "p50_ms": _percentile(self.answered, 50) * 1e3,
            "p99_ms": _percentile(self.answered, 99) * 1e3,
            "p50_over_predicted": _percentile(self.over_predicted, 50),
            "p99_over_predicted": _percentile(self.over_predicted, 99),
            "refused_p50_ms": _percentile(self.refused, 50) * 1e3,
            "refused_p99_ms": _percentile(self.refused, 99) * 1e3,
        }


class Load:
    """Sends over as many connections as it takes, up to a limit; past that a request counts as not sent.

    Attributes:
        idle: connections that nothing is asked over now.
    """

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self.counts = Counts()
        self._port = port
        self._requests = cycle(requests)
        self.idle: list[Connection] = []
        self.started_at = 0.0
        self._opened = 0
        self._under_way = 0
        self._again_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run_open(self, rate: float, seconds: float) -> None:
        """Send so many a second for so long, then wait for what is under way."""
        self.started_at = started_at = time.perf_counter()
        for number in range(round(rate * seconds)):
            due_at = started_at + number / rate
            while (early_s := due_at - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            self._send(due_at)
            if number % 16 == 0:  # where it runs behind the clock, replies must still be read
                await asyncio.sleep(0)
        await self._finish()

    async def run_closed(self, connections: int, seconds: float) -> None:
        """Have so many connections ask again and again for so long, then wait for what is under way."""
        self.started_at = time.perf_counter()
        self._again_until = self.started_at + seconds
        for _ in range(connections):
            self._send(self.started_at)
        await asyncio.sleep(seconds)
        await self._finish()

    async def _finish(self) -> None:
        give_up_at = time.perf_counter() + PATIENCE_S
        while self._under_way and time.perf_counter() < give_up_at:
            await asyncio.sleep(0.02)
        if self._under_way:
            self.counts.failed["no reply"] = self._under_way

    def _send(self, due_at: float) -> None:
        while self.idle:
            connection = self.idle.pop()
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
            now = time.perf_counter()
            self.counts.add(result, now - due_at, predicted_s(connection.head))
            if connection.is_open:
                self.idle.append(connection)
            else:
                self._opened -= 1
            if now < self._again_until:
                # Not from here: the connection has yet to forget this reply.
                asyncio.get_running_loop().call_soon(self._send, now)

        connection.ask(next(self._requests), answered)


def predicted_s(head: bytes) -> float | None:
    """What a reply's head says of it, in seconds; None where it says nothing."""
    found = _PREDICTED.search(head)
    return float(found[1]) / 1e3 if found else None


def _percentile(values: list[float], percent: float) -> float:
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def main() -> None:
    """One load."""
    wanted = json.loads(sys.stdin.readline())
    load = Load(wanted["port"], [Path(path).read_bytes() for path in wanted["requests"]])
    if "rate" in wanted:
        asyncio.run(load.run_open(wanted["rate"], wanted["seconds"]))
    else:
        asyncio.run(load.run_closed(wanted["connections"], wanted["seconds"]))
    print(json.dumps(load.counts.as_json() | {"lasted_s": load.counts.last_answer_at - load.started_at}))


if __name__ == "__main__":
    main()
