"""The batcher where the event loop computes, and what calibration decides for it."""

import asyncio
import logging
import math
import time

import pytest

from nomadserve_runtime import policy
from nomadserve_runtime.batcher import Batcher
from nomadserve_runtime.calibration import BatchTime, Calibration
from nomadserve_runtime.engines.fake import FakeEngine
from nomadserve_runtime.errors import EngineFailed, Hopeless, HungUp
from nomadserve_runtime.metrics import Series
from nomadserve_runtime.slots import Slot
from tests.unit.runtime.batching import admit, answer, ask, run, until
from tests.unit.runtime.models import GatedEngine, fake_engine

INLINE = Calibration((BatchTime(1, 1e-5), BatchTime(4, 2e-5)), 1e-4, is_inline=True)
SLOW = Calibration((BatchTime(1, 10.0),), 1e-4, is_inline=False)


class Batches(FakeEngine):
    """Notes the size of each batch."""

    def run(self, slot: Slot, rows: int) -> None:
        self.batches = [*getattr(self, "batches", []), rows]
        super().run(slot, rows)


def noting(**behaviour: object) -> Batches:
    engine = fake_engine(batch_max=4, **behaviour)
    engine.__class__ = Batches
    assert isinstance(engine, Batches)
    return engine


def inline(engine: FakeEngine, *, latency_target_s: float = math.inf, series: Series | None = None) -> Batcher:
    return Batcher(
        engine,
        queue_max=16,
        delay_s_max=0.0,
        metrics=(series or Series()).model("m"),
        latency_target_s=latency_target_s,
        calibration=INLINE,
    )


def test_a_fast_engine_needs_no_thread_and_answers_right() -> None:
    async def test() -> None:
        engine = noting()
        batcher = inline(engine)
        asked = [ask(batcher, value, value + 0.5) for value in range(7)]
        assert await asyncio.gather(*asked) == [[value, value + 0.5] for value in range(7)]
        assert engine.batches == [4, 4, 4, 2]
        await batcher.wait_idle()
        assert (batcher.running_rows, batcher.queued_rows, batcher._queue.out) == (0, 0, 0)
        batcher.close()

    run(test)


def test_a_batch_waits_a_few_turns_for_those_whose_bodies_are_being_read() -> None:
    async def test() -> None:
        engine = noting()
        batcher = inline(engine)
        batcher.reading = 1
        first = admit(batcher, 1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        batcher.reading = 0
        second = admit(batcher, 2)
        assert [await answer(ticket) for ticket in (first, second)] == [[1], [2]]
        assert engine.batches == [2]
        batcher.reading = 1  # somebody who never comes
        assert await ask(batcher, 3) == [3]
        batcher.close()

    run(test)


def test_what_is_full_is_computed_before_others_are_read_but_no_more_than_a_few_batches() -> None:
    async def test() -> None:
        engine = noting()
        metrics = Series().model("m")
        batcher = Batcher(engine, queue_max=64, delay_s_max=0.0, metrics=metrics, calibration=INLINE)
        tickets = [admit(batcher, value) for value in range(4 * policy.INLINE_MAX + 7)]
        turns = []
        while batcher.in_flight:
            await asyncio.sleep(0)
            turns.append(list(engine.batches))
            engine.batches.clear()
        # One that is not full waits for a turn of its own, in which it may still grow.
        assert turns == [policy.INLINE_MAX * [4], [4], [3]]
        assert [await answer(ticket) for ticket in tickets] == [[value] for value in range(len(tickets))]
        batcher.close()

    run(test)


def test_an_engine_that_fails_on_the_event_loop_fails_its_batch_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        batcher = inline(fake_engine(fail_on=666))
        with pytest.raises(EngineFailed):
            await ask(batcher, 666)
        assert await ask(batcher, 1) == [1]
        assert batcher._queue.out == 0
        batcher.close()

    with caplog.at_level(logging.CRITICAL, "nomadserve"):
        run(test)


def test_what_can_not_make_its_deadline_is_refused_before_it_takes_a_place() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        batcher = Batcher(engine, queue_max=8, delay_s_max=0.0, metrics=Series().model("m"), calibration=SLOW)
        tickets = []
        for _ in range(3):
            tickets.append(admit(batcher, 1))
            await asyncio.sleep(0)
        assert batcher.predicted_wait_s() == pytest.approx(20, abs=1)
        with pytest.raises(Hopeless) as refused:
            admit(batcher, 2, deadline_at=time.monotonic() + 5)
        assert refused.value.reason == "deadline"
        assert batcher.in_flight == 3
        tickets.append(admit(batcher, 2, deadline_at=time.monotonic() + 60))
        engine.let_run(100)
        for ticket in tickets:
            await answer(ticket)
        batcher.close()

    run(test)


def test_a_deadline_is_held_against_what_stands_before_the_request_and_not_behind_it() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        batcher = Batcher(engine, queue_max=8, delay_s_max=0.0, metrics=Series().model("m"), calibration=SLOW)
        tickets = []
        for _ in range(5):
            tickets.append(admit(batcher, 1, priority=3))
            await asyncio.sleep(0)
        in_time = time.monotonic() + 15  # one of the two batches with the engine is back after 10 s
        with pytest.raises(Hopeless):
            admit(batcher, 1, deadline_at=in_time, priority=4)
        tickets.append(admit(batcher, 1, deadline_at=in_time, priority=1))
        engine.let_run(100)
        for ticket in tickets:
            await answer(ticket)
        batcher.close()

    run(test)


def test_a_deadline_is_held_against_the_launch_behind_a_batch_that_runs_not_against_its_end() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=4)
        linear = Calibration((BatchTime(1, 10.0), BatchTime(4, 40.0)), 1e-4)
        batcher = Batcher(engine, queue_max=4, delay_s_max=0.0, metrics=Series().model("m"), calibration=linear)
        tickets = [admit(batcher, 1)]
        await until(lambda: engine.batches == [1])
        tickets.append(admit(batcher, 2, 3, 4))
        # It needs a batch of its own, which is enqueued behind those three when the first is back: after 10 s.
        tickets.append(admit(batcher, 5, deadline_at=time.monotonic() + 15))
        engine.let_run(100)
        assert [await answer(ticket) for ticket in tickets] == [[1], [2, 3, 4], [5]]
        batcher.close()

    run(test)


def test_an_idle_engine_takes_any_deadline() -> None:
    async def test() -> None:
        batcher = Batcher(fake_engine(), queue_max=8, delay_s_max=0.0, metrics=Series().model("m"), calibration=SLOW)
        assert await answer(admit(batcher, 1, deadline_at=time.monotonic() + 5)) == [1]
        batcher.close()

    run(test)


def test_a_request_of_higher_priority_is_run_before_those_that_wait() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        batcher = Batcher(engine, queue_max=8, delay_s_max=0.0, metrics=Series().model("m"))
        order: list[float] = []

        async def note(value: float, priority: int) -> None:
            ticket = admit(batcher, value, priority=priority)
            order.extend(await answer(ticket))

        ahead = [asyncio.create_task(note(value, 0)) for value in (1, 2)]
        await until(lambda: batcher.running_rows == 2)
        behind = []
        for value, priority in ((3, 9), (4, 0), (5, 2), (6, 1)):
            behind.append(asyncio.create_task(note(value, priority)))
            await asyncio.sleep(0)
        engine.let_run(6)
        await asyncio.gather(*ahead, *behind)
        assert order == [1, 2, 6, 4, 5, 3]
        batcher.close()

    run(test)


def test_places_are_kept_for_bodies_that_are_being_read() -> None:
    async def test() -> None:
        batcher = Batcher(fake_engine(batch_max=1), queue_max=2, delay_s_max=0.0, metrics=Series().model("m"))
        batcher.reading = 3
        assert batcher.refusal() is None
        batcher.reading = 4  # two in the queue, one that runs, one ahead of it
        refused = batcher.refusal()
        assert refused is not None
        assert refused.reason == "queue_full"
        batcher.close()

    run(test)


def test_numbers_that_are_not_finite_are_counted() -> None:
    async def test() -> None:
        series = Series()
        batcher = inline(fake_engine(), series=series)
        await asyncio.gather(ask(batcher, 1, math.nan), ask(batcher, 2), ask(batcher, math.inf))
        assert series.model("m").nan_rows.value == 2
        batcher.close()

    run(test)


def test_padding_expiry_and_hang_ups_are_counted_in_rows() -> None:
    async def test() -> None:
        series, engine = Series(), fake_engine(batch_max=4)
        engine.run_rows = lambda rows: 4  # type: ignore[method-assign]
        batcher = inline(engine, series=series)
        await ask(batcher, 1)
        ticket = admit(batcher, 2, 3)
        batcher.hang_up(ticket)
        with pytest.raises(HungUp):
            await answer(ticket)
        metrics = series.model("m")
        assert (metrics.padded_rows.value, metrics.abandoned_rows.value) == (3, 2)
        batcher.close()

    run(test)


def test_the_wait_for_more_rows_adapts_to_the_latency_target() -> None:
    async def test() -> None:
        batcher = inline(fake_engine(batch_max=4), latency_target_s=0.5)
        for _ in range(3):
            await asyncio.gather(ask(batcher, 1), ask(batcher, 2))
        assert 0 < batcher.delay_s < 0.5
        grown = batcher.delay_s
        await ask(batcher, 1)  # nobody else came
        assert batcher.delay_s < grown
        batcher.start_draining()
        assert batcher.delay_s == 0
        batcher.close()

    run(test)


def test_where_a_second_row_doubles_the_time_batches_are_of_one_row_and_requests_of_their_own() -> None:
    async def test() -> None:
        engine = noting()
        linear = Calibration((BatchTime(1, 0.01), BatchTime(2, 0.02), BatchTime(4, 0.04)), 2e-5)
        batcher = Batcher(engine, queue_max=16, delay_s_max=3600.0, metrics=Series().model("m"), calibration=linear)
        asked = [admit(batcher, *values) for values in ([1.0], [2.0], [3.0, 4.0, 5.0], [6.0])]
        # Of six rows, one is with the engine when the next is enqueued behind it: four or five batches of one row.
        assert 0.04 <= batcher.predicted_wait_s() <= 0.05
        assert [await answer(ticket) for ticket in asked] == [[1.0], [2.0], [3.0, 4.0, 5.0], [6.0]]
        assert engine.batches == [1, 1, 3, 1]
        await batcher.wait_idle()
        batcher.close()

    run(test)


def test_requests_of_one_batch_are_told_one_time_and_those_of_the_next_another() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=2)
        timed = Calibration((BatchTime(1, 1000.0), BatchTime(2, 1000.0)), 1e-4)
        batcher = Batcher(engine, queue_max=8, delay_s_max=0.0, metrics=Series().model("m"), calibration=timed)
        first = admit(batcher, 1)
        await until(lambda: engine.batches == [1])
        tickets = [admit(batcher, 2), admit(batcher, 3), admit(batcher, 4), admit(batcher, 5), admit(batcher, 6)]
        told = [ticket.answer_by - first.admitted_at for ticket in (first, *tickets)]
        assert told == pytest.approx([math.inf, math.inf, 2000, 3000, 3000, 4000], abs=1)
        engine.let_run(100)
        for ticket in (first, *tickets):
            await answer(ticket)
        batcher.close()

    run(test)
