"""Admission, launch and hand-back for one model: `policy` answers, this acts.

    event loop                                    engine thread
    admit: reserve rows, copy them in
    launch: take the oldest slot     ──inbox──►   engine.run
    hand back: answer every ticket   ◄──────────  call_soon_threadsafe
    the slot is free

Only the event loop touches slots, tickets and counters; only the engine thread calls the engine. There are no locks.
Where calibration shows that a batch is done sooner than a thread would hear of it, the event loop calls the engine.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from nomadserve_runtime import policy
from nomadserve_runtime.calibration import UNCALIBRATED, Calibration
from nomadserve_runtime.engine import Engine, slots_for, touch
from nomadserve_runtime.errors import (
    Draining,
    EngineFailed,
    EngineLost,
    Expired,
    Fault,
    Hopeless,
    HungUp,
    QueueFull,
    Refused,
)
from nomadserve_runtime.metrics import ModelMetrics
from nomadserve_runtime.pace import Pace
from nomadserve_runtime.runner import runner_for
from nomadserve_runtime.slots import Slot, SlotQueue, Ticket
from nomadserve_runtime.tensors import rows_not_finite

log = logging.getLogger("nomadserve.batcher")

# Within this time all who are refused at the door are told the same time to come back, and all who join the same batch
# the same time of their answer: it is the end of that batch.
ALIKE_S = 0.002


class Batcher:
    """One model's queue and its engine. Build it, and call it, on the event loop.

    latency_target_s: how long a request may take from admission to answer; the wait for more rows adapts to it.
        Infinite for none: then `delay_s_max` is that wait.

    Attributes:
        engine: what it feeds. `close` closes it.
        calibration: what was measured of it at start.
        rows_max: rows of the largest request that can ever be admitted.
        in_flight: requests admitted and not yet answered.
        reading: requests let in whose bodies are being read; the caller counts them.
        running_rows: rows with the engine.
        pace: how fast the engine is, as measured while it serves.
        on_lost: called when the engine can't go on in this process; by then every request that waited has its answer.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        queue_max: int,
        delay_s_max: float,
        metrics: ModelMetrics,
        latency_target_s: float = math.inf,
        calibration: Calibration = UNCALIBRATED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self.calibration = calibration
        # What a batch is filled up to.
        self._batch_rows = calibration.worthwhile_rows(engine.batch_max)
        self.rows_max = min(engine.batch_max, queue_max)
        self.in_flight = self.reading = self.running_rows = 0
        times = [calibration.batch_s(engine.run_rows(rows + 1)) for rows in range(engine.batch_max)]
        self.pace = Pace(times, parallel=engine.parallel, clock=clock)
        self.on_lost: Callable[[EngineLost], None] = lambda _: None
        self._clock = clock
        self._latency_target_s = latency_target_s
        self._delay_s_max = delay_s_max
        self._metrics = metrics
        self._slots = slots_for(engine, rows_max=queue_max)
        self._queue = SlotQueue(self._slots, rows_max=queue_max, batch_rows=self._batch_rows)
        # Rows that have a place at all: in the queue, and with the engine. No more bodies are read than can get one.
        self._places = queue_max + policy.handed_max(engine.parallel) * engine.batch_max
        self._loop = asyncio.get_running_loop()
        self._is_draining = False
        self._idle = asyncio.Event()
        self._handed = self._turns = 0
        self._queue_full = QueueFull(retry_after_s=0.0)
        self._queue_full_until = self._foretold_until = self._answer_by = -math.inf
        self._foretold: Slot | None = None
        self._launch_planned = False
        self._launch_timer: asyncio.TimerHandle | None = None
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._next_expiry_at = math.inf
        self._was_empty = True
        self._is_inline = calibration.is_inline
        self._runner = runner_for(engine, self._hand_back, is_inline=self._is_inline)
        metrics.watch(
            in_flight=lambda: self.in_flight, queued_rows=lambda: self.queued_rows, backlog_seconds=self.backlog_s
        )

    def touch(self) -> None:
        """Have the system bring the memory of the queue, before anybody is served; in any thread."""
        touch(self._slots)

    @property
    def queued_rows(self) -> int:
        """Rows admitted, not yet handed to the engine."""
        return self._queue.rows

    def backlog_s(self) -> float:
        """How long what is queued and running will take; 0.0 where there is nothing, or nothing is known."""
        rows = self._queue.rows + self.running_rows
        return self.pace.likely_s(rows, self._handed + len(self._queue.open)) if rows else 0.0

    @property
    def delay_s(self) -> float:
        """How long a batch waits for more rows while the engine is idle; it changes where there is a latency target."""
        return self._delay_s_max

    def refusal(self) -> Refused | None:
        """Why nothing new may come in now, before its body is read; None where it may.

        The places of those whose bodies are being read count as taken: else any number of bodies would pile up.
        """
        queue = self._queue
        if self._is_draining:
            return Draining()
        if queue.rows >= queue.rows_max or self.reading + queue.rows + self.running_rows >= self._places:
            now = self._clock()
            if now >= self._queue_full_until:
                self._queue_full_until = now + ALIKE_S
                self._queue_full = QueueFull(retry_after_s=policy.retry_after_seconds(self.backlog_s()))
            return self._queue_full
        return None

    def check_open(self, rows: int = 1) -> None:
        """Raise what `admit` would raise for that many rows: `Draining` or `QueueFull`."""
        if self._is_draining:
            raise Draining
        if rows > self._queue.free_rows:
            raise QueueFull(retry_after_s=policy.retry_after_seconds(self.backlog_s()))

    def predicted_wait_s(self, *, rows: int = 1, due_at: float = math.inf) -> float:
        """How long at least a request that comes now, with its turn at `due_at`, waits for its launch, in seconds."""
        queue = self._queue
        ahead = [slot for slot in queue.open if slot.due_at <= due_at]
        # It joins the first one that has room, wherever that stands.
        joined = next((place for place, slot in enumerate(ahead) if queue.joining_max(slot) >= rows), len(ahead))
        rows_ahead = [slot.rows for slot in ahead[:joined]]
        back, batches = policy.back_before_launch(
            running_rows=self.running_rows, handed=self._handed, ahead=rows_ahead, parallel=self.engine.parallel
        )
        return self.pace.soonest_s(back, batches) if batches else 0.0

    def admit(self, ticket: Ticket, inputs: Sequence[np.ndarray]) -> None:
        """Queue one request: its rows are copied in; `ticket.answered` is called, once, when its answer is there.

        inputs: one array per input of the engine, in its order; shape (rows, *row_shape), of the right type.
        The ticket has from 1 to `rows_max` rows, and its deadline is by this batcher's clock.

        Raises:
            Draining: nothing is taken any more.  QueueFull: the rows don't fit under the limit.
            Hopeless: what waits already takes longer than until its deadline. Also whatever `ticket.write` raises.
        """
        assert 0 < ticket.rows <= self.rows_max
        queue = self._queue
        if self._is_draining or ticket.rows > queue.rows_max - queue.rows:
            self.check_open(ticket.rows)
        if ticket.shapes and not queue.has_place(ticket):
            raise QueueFull(retry_after_s=policy.retry_after_seconds(self.backlog_s()))
        ticket.admitted_at = now = self._clock()
        ticket.due_at = policy.due_at(admitted_at=now, priority=ticket.priority) if ticket.priority else now
        if not (self._handed or queue.open):
            self._was_empty = True  # perhaps only since those who waited have left
            self.pace.start()  # nothing has passed of a batch that runs
        left_s = ticket.deadline_at - now
        # The exact answer costs more, and is wanted only where as many batches as there are may take that long.
        if left_s < (self._handed + len(queue.open)) * self.pace.batch_s and left_s < self.predicted_wait_s(
            rows=ticket.rows, due_at=ticket.due_at
        ):
            raise Hopeless(retry_after_s=policy.retry_after_seconds(self.backlog_s()))
        # No await from here on: a reserved row is always a written row.
        queue.reserve(ticket)
        rows = queue.rows + self.running_rows
        if rows > self._batch_rows:  # some are ahead of its batch
            if ticket.slot is not self._foretold or now >= self._foretold_until:
                self._foretold, self._foretold_until = ticket.slot, now + ALIKE_S
                rows += queue.joining_max(ticket.slot)
                self._answer_by = now + self.pace.latest_s(rows, self._handed + len(queue.open))
            ticket.answer_by = self._answer_by
        try:
            ticket.write(inputs)
        except Exception:
            queue.leave(ticket)
            raise
        self.in_flight += 1
        if ticket.deadline_at < self._next_expiry_at:
            self._watch_deadline(ticket.deadline_at)
        if not self._launch_planned:
            self._plan_launch()

    def fail(self, ticket: Ticket, fault: Fault) -> None:
        """Answer a request before the engine does; its rows are free. Nothing happens where it was answered before."""
        if ticket.is_answered:
            return
        self._queue.leave(ticket)
        ticket.fault = fault
        self._answer(ticket)
        # A free slot may be what the next launch waited for.
        if self._queue.open:
            self._plan_launch()

    def hang_up(self, ticket: Ticket) -> None:
        """Nobody will read the answer of this request."""
        if not ticket.is_answered:
            self._metrics.abandoned_rows.value += ticket.rows
            self.fail(ticket, HungUp())

    def start_draining(self) -> None:
        """Refuse everything from now on, and finish what was admitted without waiting for more."""
        self._is_draining = True
        self._delay_s_max = 0.0
        self._latency_target_s = math.inf
        self._plan_launch()

    async def wait_idle(self) -> None:
        """Return when every admitted request has been answered."""
        while self.in_flight:
            self._idle.clear()
            await self._idle.wait()

    def close(self) -> None:
        """Close the engine after the batches that it has."""
        for timer in (self._launch_timer, self._expiry_timer):
            if timer is not None:
                timer.cancel()
        self._runner.close()
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
            slot = self._queue.next()
            wait_s = self._seconds_until_launch(slot)
            if wait_s == math.inf:
                return
            if wait_s > 0:
                self._launch_timer = self._loop.call_later(wait_s, self._launch)
                return
            if self._is_inline:
                self._launch_inline(slot)
                return
            self._hand_over()

    def _launch_inline(self, slot: Slot) -> None:
        """Compute what is full in this turn of the loop, or leave a batch to a later one that will have more rows."""
        if policy.is_worth_a_turn(rows=slot.rows, capacity=self._batch_rows, reading=self.reading, turns=self._turns):
            self._turns += 1
            self._plan_launch()
            return
        self._turns = 0
        for _ in range(policy.INLINE_MAX):
            self._hand_over()
            if not self._queue.open:
                return
            if self._queue.next().rows < self._batch_rows:
                break
        self._plan_launch()

    def _seconds_until_launch(self, slot: Slot) -> float:
        return policy.seconds_until_launch(
            rows=slot.rows,
            capacity=self._batch_rows,
            is_last=self._queue.is_last(slot),
            handed=self._handed,
            out=self._queue.out,
            oldest_at=slot.oldest_at,
            now=self._clock(),
            delay_s_max=self._delay_s_max,
            parallel=self.engine.parallel,
        )

    def _hand_over(self) -> None:
        slot, self._foretold = self._queue.take(), None
        if self._handed == 0 and self._was_empty:
            self.pace.start()
        self._handed += 1
        self.running_rows += slot.rows
        self._runner.start(slot, slot.rows)

    # -- hand-back ------------------------------------------------------------------------------------------------

    def _hand_back(self, slot: Slot, rows: int, failure: Exception | None) -> None:
        self._handed -= 1
        self.running_rows -= rows
        self._was_empty = not self._queue.open
        self.pace.count(rows)
        if isinstance(failure, EngineLost):
            self._lose(failure)
        elif not self._is_inline:
            # Before the replies: the engine runs on while they are encoded.
            self._launch()
        if self._latency_target_s < math.inf and slot.tickets:
            self._adapt_delay(slot, rows)
        metrics = self._metrics
        slot.answered_at = datetime.now(UTC)
        for ticket in list(slot.tickets):
            metrics.queue_seconds.observe(slot.started_at - ticket.admitted_at)
            if failure is not None:
                ticket.fault = EngineFailed(failure)
            self._answer(ticket)
        metrics.batch_rows.observe(rows)
        metrics.engine_seconds.observe(slot.ended_at - slot.started_at)
        if failure is not None:
            log.error("the engine failed on a batch of %d rows", rows, exc_info=failure)
        else:
            self._note_padding_and_nan(slot, rows)
        self._queue.finish(slot)
        metrics.sweep()
        # A free slot may be what the next launch waited for.
        if self._queue.open and (self._is_inline or self._queue.out + 1 == policy.out_max(self.engine.parallel)):
            self._plan_launch()

    def _lose(self, failure: EngineLost) -> None:
        """Nothing will be computed any more: who waits is told now, and nobody is taken in."""
        self.start_draining()
        for ticket in self._queued():
            self.fail(ticket, EngineFailed(failure))
        self.on_lost(failure)

    def _answer(self, ticket: Ticket) -> None:
        ticket.is_answered = True
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()
        ticket.answered()

    def _note_padding_and_nan(self, slot: Slot, rows: int) -> None:
        self._metrics.padded_rows.value += self.engine.run_rows(rows) - rows
        self._metrics.nan_rows.value += sum(rows_not_finite(array[:rows]) for array in slot.outputs)

    def _adapt_delay(self, slot: Slot, rows: int) -> None:
        self._delay_s_max = policy.adapted_delay(
            self._delay_s_max,
            latency_s=self._clock() - slot.oldest_at,
            rows=rows,
            target_s=self._latency_target_s,
            batch_s=self.calibration.batch_s(slot.capacity),
        )

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
        queued = self._queued()
        for ticket in queued:
            if ticket.deadline_at <= now:
                self._metrics.expired_rows.value += ticket.rows
                self.fail(ticket, Expired())
        self._next_expiry_at = math.inf
        later = (ticket.deadline_at for ticket in queued if ticket.deadline_at > now)
        self._watch_deadline(min(later, default=math.inf))

    def _queued(self) -> list[Ticket]:
        return [ticket for slot in self._queue.open for ticket in slot.tickets]
