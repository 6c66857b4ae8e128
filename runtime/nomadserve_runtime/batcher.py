"""Admission, launch and hand-back for one model: `policy` answers, this acts.

    event loop                                    engine thread
    admit: reserve rows, copy them in
    launch: take the oldest slot     ──inbox──►   engine.run
    hand back: resolve every ticket  ◄──────────  call_soon_threadsafe
    give up: the last ticket out frees the slot

Only the event loop touches slots, tickets and counters; only the engine thread calls the engine. There are no locks.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread

import numpy as np

from nomadserve_runtime import policy
from nomadserve_runtime.engine import Engine
from nomadserve_runtime.errors import Draining, EngineFailed, Expired, Fault, QueueFull
from nomadserve_runtime.metrics import ModelMetrics
from nomadserve_runtime.slots import Slot, SlotQueue, Ticket

log = logging.getLogger("nomadserve.batcher")


class Batcher:
    """One model's queue and its engine thread. Build it, and call it, on the event loop.

    Attributes:
        engine: what it feeds. `close` ends the thread and closes it.
        rows_max: rows of the largest request that can ever be admitted.
        in_flight: requests admitted and not yet given up.
        running_rows: rows with the engine.
        rows_per_second: as measured over the last batches; 0.0 until the first came back.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        queue_max: int,
        delay_s_max: float,
        metrics: ModelMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self.rows_max = min(engine.batch_max, queue_max)
        self.in_flight = 0
        self.running_rows = 0
        self.rows_per_second = 0.0
        self._clock = clock
        self._delay_s_max = delay_s_max
        self._metrics = metrics
        self._queue = _slot_queue(engine, rows_max=queue_max)
        self._loop = asyncio.get_running_loop()
        self._is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._handed = 0
        self._launch_planned = False
        self._launch_timer: asyncio.TimerHandle | None = None
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._next_expiry_at = math.inf
        self._busy_since = clock()
        self._measured_rows = 0.0
        self._measured_seconds = 0.0
        self._inbox: SimpleQueue[tuple[Slot, int] | None] = SimpleQueue()
        # A daemon, so that a forced exit does not wait for a batch.
        self._thread = Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()
        metrics.watch(
            in_flight=lambda: self.in_flight,
            queued_rows=lambda: self.queued_rows,
            backlog_seconds=lambda: policy.backlog_seconds(
                rows=self.queued_rows + self.running_rows, rows_per_second=self.rows_per_second
            ),
        )

    @property
    def queued_rows(self) -> int:
        """Rows admitted, not yet handed to the engine."""
        return self._queue.rows

    def check_open(self, rows: int = 1) -> None:
        """Raise what `admit` would raise for that many rows; cheap, for use before a body is read.

        Raises:
            QueueFull: the rows don't fit under the limit.
            Draining: nothing is taken any more.
        """
        if self._is_draining:
            raise Draining
        if rows > self._queue.free_rows:
            raise QueueFull(retry_after_s=self._retry_after_s())

    def admit(self, inputs: Sequence[np.ndarray], *, rows: int, deadline_at: float = math.inf) -> Ticket:
        """Queue one request: its rows are copied in, and `done` of its ticket tells when the answer is there.

        inputs: one array per input of the engine, in its order; shape (rows, *row_shape), of the right type.
        rows: from 1 to `rows_max`.  deadline_at: by this batcher's clock.
        The ticket must be given up exactly once, whatever happens.

        Raises:
            QueueFull, Draining: as `check_open`.
        """
        assert 0 < rows <= self.rows_max
        self.check_open(rows)
        # No await from here on: a reserved row is always a written row.
        ticket = Ticket(rows, self._clock(), deadline_at, self._loop.create_future())
        self._queue.reserve(ticket)
        ticket.write(inputs)
        self.in_flight += 1
        self._idle.clear()
        self._watch_deadline(deadline_at)
        self._plan_launch()
        return ticket

    def give_up(self, ticket: Ticket) -> None:
        """The request no longer needs its rows: it read its answer, failed, or went away."""
        assert not ticket.is_given_up
        ticket.is_given_up = True
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()
        ticket.done.cancel()
        self._queue.leave(ticket)
        # A free slot may be what the next launch waited for.
        if self._queue.open:
            self._plan_launch()

    def fail(self, ticket: Ticket, fault: Fault) -> None:
        """Answer a request before the engine does, because nobody will read what the engine says."""
        _resolve(ticket, fault)

    def start_draining(self) -> None:
        """Refuse everything from now on, and finish what was admitted without waiting for more."""
        self._is_draining = True
        self._delay_s_max = 0.0
        self._plan_launch()

    async def wait_idle(self) -> None:
        """Return when every admitted request has been answered."""
        await self._idle.wait()

    def close(self) -> None:
        """End the engine thread after the batches it has, and close the engine."""
        for timer in (self._launch_timer, self._expiry_timer):
            if timer is not None:
                timer.cancel()
        self._inbox.put(None)
        self._thread.join()
        self.engine.close()

    # -- launch ---------------------------------------------------------------------------------------------------

    def _plan_launch(self) -> None:
        """Launch at the end of this turn of the loop: requests that arrived together share a batch."""
        if not self._launch_planned:
            self._launch_planned = True
            self._loop.call_soon(self._launch)

    def _launch(self) -> None:
        self._launch_planned = False
        if self._launch_timer is not None:
            self._launch_timer.cancel()
            self._launch_timer = None
        if self._clock() >= self._next_expiry_at:
            self._expire()
        while self._queue.open:
            wait_s = self._seconds_until_launch()
            if wait_s == math.inf:
                return
            if wait_s > 0:
                self._launch_timer = self._loop.call_later(wait_s, self._launch)
                return
            self._hand_over()

    def _seconds_until_launch(self) -> float:
        oldest = self._queue.open[0]
        return policy.seconds_until_launch(
            rows=oldest.rows,
            capacity=oldest.capacity,
            is_last=len(self._queue.open) == 1,
            handed=self._handed,
            out=self._queue.out,
            oldest_at=oldest.oldest_at,
            now=self._clock(),
            delay_s_max=self._delay_s_max,
        )

    def _hand_over(self) -> None:
        slot = self._queue.take()
        if self._handed == 0:
            self._busy_since = self._clock()
        self._handed += 1
        self.running_rows += slot.rows
        self._inbox.put((slot, slot.rows))

    # -- the engine thread ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (batch := self._inbox.get()) is not None:
            slot, rows = batch
            started_at = self._clock()
            failure: Exception | None = None
            try:
                self.engine.run(slot, rows)
            except Exception as error:  # whatever an engine raises fails this batch, and no other
                failure = error
            self._loop.call_soon_threadsafe(self._hand_back, slot, rows, started_at, self._clock(), failure)

    # -- hand-back ------------------------------------------------------------------------------------------------

    def _hand_back(self, slot: Slot, rows: int, started_at: float, ended_at: float, failure: Exception | None) -> None:
        self._handed -= 1
        self.running_rows -= rows
        self._measure(rows if failure is None else 0)
        # Before the replies: the engine runs on while they are encoded.
        self._launch()
        self._metrics.batch_rows.observe(rows)
        self._metrics.engine_seconds.observe(ended_at - started_at)
        if failure is not None:
            log.error("the engine failed on a batch of %d rows", rows, exc_info=failure)
        for ticket in slot.tickets:
            self._metrics.queue_seconds.observe(started_at - ticket.admitted_at)
            _resolve(ticket, EngineFailed(f"the engine failed: {_summary(failure)}") if failure else None)
        self._queue.finish(slot)

    def _measure(self, rows: int) -> None:
        """Take the rows answered since the engine got busy, or since the last batch came back, into the rate."""
        now = self._clock()
        self._measured_rows = self._measured_rows * policy.RATE_MEMORY + rows
        self._measured_seconds = self._measured_seconds * policy.RATE_MEMORY + now - self._busy_since
        self._busy_since = now
        if self._measured_seconds > 0:
            self.rows_per_second = self._measured_rows / self._measured_seconds

    def _retry_after_s(self) -> float:
        rows = self.queued_rows + self.running_rows
        return policy.retry_after_seconds(rows=rows, rows_per_second=self.rows_per_second)

    # -- deadlines ------------------------------------------------------------------------------------------------

    def _watch_deadline(self, deadline_at: float) -> None:
        """Have `_expire` run no later than `deadline_at`. One timer serves all: most deadlines are met."""
        if deadline_at >= self._next_expiry_at:
            return
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
        self._next_expiry_at = deadline_at
        self._expiry_timer = self._loop.call_later(deadline_at - self._clock(), self._expire)

    def _expire(self) -> None:
        """Fail every queued request whose deadline has passed; its rows are free at once."""
        now = self._clock()
        queued = [ticket for slot in self._queue.open for ticket in slot.tickets]
        for ticket in queued:
            if ticket.deadline_at <= now:
                self._queue.leave(ticket)
                _resolve(ticket, Expired())
        self._next_expiry_at = math.inf
        self._watch_deadline(
            min((ticket.deadline_at for ticket in queued if ticket.deadline_at > now), default=math.inf)
        )


def _slot_queue(engine: Engine, *, rows_max: int) -> SlotQueue:
    count = policy.slots_needed(rows_max=rows_max, capacity=engine.batch_max)
    slots = [
        Slot(
            inputs=engine.inputs,
            outputs=engine.outputs,
            capacity=engine.batch_max,
            host_array=engine.host_array,
        )
        for _ in range(count)
    ]
    return SlotQueue(slots, rows_max=rows_max)


def _resolve(ticket: Ticket, fault: Fault | None) -> None:
    if ticket.done.done():
        return
    if fault is None:
        ticket.done.set_result(None)
    else:
        ticket.done.set_exception(fault)


def _summary(failure: Exception) -> str:
    """What a client may know of it: the first line."""
    return str(failure).strip().split("\n", 1)[0][:200] or type(failure).__name__
