"""Sends requests by the clock. A late reply delays no request: latencies suffer no coordinated omission.

Every request has a moment at which it is due. Its latency counts from that moment, not from when it left, so that what
the generator itself adds is in the figure, and is reported beside it as lag. asyncio's timers wake on whole
milliseconds, which is the grid that requests leave on.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import cycle

from nomadserve.operations.load.connection import Connection
from nomadserve.operations.load.plan import Aim, Load, Outcome, Progress
from nomadserve.operations.load.tally import LAG_PERCENTILES, PERCENTILES, Tally, in_ms

PROGRESS_EVERY_S = 0.25
EXPIRY_EVERY_S = 0.05

TIMEOUT = "timeout"
NOT_SENT = "not sent"  # every connection was taken until the request's time was over
NOT_CONNECTED = "connection refused"


class Request:
    """One request from when it is due to its reply.

    Attributes:
        tally: of the load it belongs to; None where it does not count.
    """

    __slots__ = ("connection", "data", "due_at", "is_over", "tally", "timeout_at")

    def __init__(self, data: bytes, *, due_at: float, timeout_s: float, tally: Tally | None) -> None:
        self.data = data
        self.due_at = due_at
        self.timeout_at = due_at + timeout_s
        self.tally = tally
        self.connection: Connection | None = None
        self.is_over = False


class Generator:
    """Open-loop load on one target, over connections that are kept from load to load."""

    def __init__(self, aim: Aim, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._aim = aim
        self._clock = clock
        self._requests = cycle(requests_of(aim))
        self._idle: list[Connection] = []
        self._waiting: deque[Request] = deque()
        self._under_way: dict[Request, None] = {}  # in the order in which they were due
        self._connections = 0
        self._connecting: set[asyncio.Task[None]] = set()

    async def run(self, load: Load, report: Callable[[Progress], None]) -> Outcome:
        """Send one load; tell `report` a few times a second how it goes."""
        tally, cpu_before = Tally(), time.process_time()
        started_at = self._clock()
        ends_at = started_at + load.seconds
        watch = asyncio.create_task(self._watch(tally, started_at, report))
        try:
            await self._send_by_the_clock(load, tally, started_at)
            await asyncio.sleep(max(0.0, ends_at - self._clock()))
            cpu_share = (time.process_time() - cpu_before) / max(self._clock() - started_at, 1e-9)
            while load.drain and (self._under_way or self._waiting):
                await asyncio.sleep(EXPIRY_EVERY_S)
        finally:
            watch.cancel()
        return self._outcome(load, tally, cpu_share)

    def close(self) -> None:
        """Hang up all connections."""
        for task in self._connecting:
            task.cancel()
        for connection in (*self._idle, *(each.connection for each in self._under_way)):
            if connection is not None:
                connection.close()

    async def _send_by_the_clock(self, load: Load, tally: Tally, started_at: float) -> None:
        count = round(load.rate * load.seconds)
        settled_at = started_at + load.settle_seconds
        for number in range(count):
            due_at = started_at + number / load.rate
            while (early_s := due_at - self._clock()) > 0:
                await asyncio.sleep(early_s)
            self._send(
                Request(
                    next(self._requests),
                    due_at=due_at,
                    timeout_s=load.timeout_s,
                    tally=tally if due_at >= settled_at else None,
                )
            )
            if number % 64 == 0:  # where it runs behind the clock, replies must still be read
                await asyncio.sleep(0)

    def _send(self, request: Request) -> None:
        if request.tally is not None:
            request.tally.sent += 1
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                self._ask(connection, request)
                return
            self._connections -= 1
        self._waiting.append(request)
        if self._connections < self._aim.connections_max:
            self._connections += 1
            task = asyncio.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        """Open one more connection and give it to the request that has waited longest."""
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(Connection, self._aim.address, self._aim.port)
        except OSError:
            self._connections -= 1
            if self._waiting:
                self._end(self._waiting.popleft(), NOT_CONNECTED)
            return
        self._take_back(connection)

    def _ask(self, connection: Connection, request: Request) -> None:
        request.connection = connection
        self._under_way[request] = None
        if request.tally is not None:
            request.tally.lags_s.append(self._clock() - request.due_at)

        def answered(result: int | str) -> None:
            self._under_way.pop(request, None)
            self._end(request, result)
            self._take_back(connection)

        connection.ask(request.data, answered)

    def _take_back(self, connection: Connection) -> None:
        """Give a connection to whoever waits, else keep it; the youngest is used first, so spare ones stay idle."""
        if not connection.is_open:
            self._connections -= 1
        elif self._waiting:
            self._ask(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _end(self, request: Request, result: int | str) -> None:
        if request.is_over:
            return
        request.is_over = True
        if request.tally is None:
            return
        if isinstance(result, int):
            request.tally.answered(result, self._clock() - request.due_at)
        else:
            request.tally.failures[result] += 1

    async def _watch(self, tally: Tally, started_at: float, report: Callable[[Progress], None]) -> None:
        """End what has waited too long; report now and then."""
        reported_at = started_at
        while True:
            await asyncio.sleep(EXPIRY_EVERY_S)
            now = self._clock()
            self._expire(now)
            if now - reported_at >= PROGRESS_EVERY_S:
                reported_at = now
                report(
                    Progress(
                        elapsed_s=now - started_at,
                        sent=tally.sent,
                        ok=tally.ok,
                        refused=tally.refused,
                        failed=tally.failures.total(),
                    )
                )

    def _expire(self, now: float) -> None:
        while self._waiting and self._waiting[0].timeout_at <= now:
            self._end(self._waiting.popleft(), NOT_SENT)
        expired = [request for request in self._under_way if request.timeout_at <= now]
        for request in expired:
            del self._under_way[request]
            self._end(request, TIMEOUT)
            self._connections -= 1
            if request.connection is not None:
                request.connection.close()

    def _outcome(self, load: Load, tally: Tally, cpu_share: float) -> Outcome:
        return Outcome(
            rate=load.rate,
            seconds=load.seconds - load.settle_seconds,
            sent=tally.sent,
            ok=tally.ok,
            refused=tally.refused,
            failures=dict(tally.failures),
            latency_ms=in_ms(tally.latencies_s, PERCENTILES),
            lag_ms=in_ms(tally.lags_s, LAG_PERCENTILES),
            connections=self._connections,
            cpu_share=round(cpu_share, 3),
        )


def requests_of(aim: Aim) -> Iterable[bytes]:
    """Every body as the bytes of a whole request."""
    extra = "".join(f"{name}: {value}\r\n" for name, value in aim.headers.items())
    for text in aim.bodies:
        body = text.encode()
        head = (
            f"POST {aim.path} HTTP/1.1\r\nHost: {aim.host}\r\n{extra}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body
