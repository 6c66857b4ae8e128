import asyncio
import logging
import math
import time
from collections.abc import Sequence

import numpy as np
import pytest

from nomadserve_runtime.batcher import Batcher
from nomadserve_runtime.errors import Draining, EngineFailed, Expired, HungUp, QueueFull
from nomadserve_runtime.metrics import Series
from nomadserve_runtime.pace import Pace
from nomadserve_runtime.slots import Stage
from tests.unit.runtime.batching import FOREVER_S, Asked, admit, answer, ask, batching, run, until
from tests.unit.runtime.models import GatedEngine, fake_engine


def test_each_request_gets_the_answer_to_its_own_rows() -> None:
    async def test() -> None:
        async with batching(fake_engine()) as batcher:
            answers = tuple(await asyncio.gather(ask(batcher, 1, 2), ask(batcher, 3), ask(batcher, 4, 5, 6)))
            assert answers == ([1, 2], [3], [4, 5, 6])

    run(test)


def test_requests_that_arrive_together_share_a_batch() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=4)
        engine.let_run(100)
        async with batching(engine) as batcher:
            await asyncio.gather(*(ask(batcher, value) for value in range(4)))
            assert engine.batches == [4]

    run(test)


def test_open_slots_fill_while_the_engine_is_busy() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=4)
        async with batching(engine) as batcher:
            asks = [asyncio.create_task(ask(batcher, 0))]
            await until(lambda: engine.batches == [1])
            for value in (1, 2, 3):
                asks.append(asyncio.create_task(ask(batcher, value)))
                await asyncio.sleep(0)
            assert (batcher.queued_rows, batcher.running_rows) == (3, 1)
            engine.let_run(2)
            assert await asyncio.gather(*asks) == [[0], [1], [2], [3]]
            assert engine.batches == [1, 3]

    run(test)


def test_a_full_batch_is_enqueued_ahead_of_the_running_one_and_only_one() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=2)
        async with batching(engine) as batcher:
            tickets = [admit(batcher, value) for value in range(6)]
            await until(lambda: engine.batches == [2])
            assert (batcher.running_rows, batcher.queued_rows) == (4, 2)
            engine.let_run(3)
            assert [await answer(ticket) for ticket in tickets] == [[value] for value in range(6)]
            assert engine.batches == [2, 2, 2]

    run(test)


def test_an_idle_engine_waits_for_a_full_batch_as_long_as_it_is_told() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=3)
        engine.let_run(100)
        async with batching(engine, delay_s=FOREVER_S) as batcher:
            asks = [asyncio.create_task(ask(batcher, value)) for value in (1, 2)]
            await asyncio.sleep(0.05)
            assert engine.batches == []
            assert await ask(batcher, 3) == [3]
            assert await asyncio.gather(*asks) == [[1], [2]]
            assert engine.batches == [3]

    run(test)


def test_the_wait_for_more_rows_ends() -> None:
    async def test() -> None:
        async with batching(fake_engine(), delay_s=0.01) as batcher:
            assert await ask(batcher, 1) == [1]

    run(test)


def test_the_limit_is_exact_in_rows() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=4)
        async with batching(engine, queue_max=10) as batcher:
            running = [admit(batcher, 1, 1, 1, 1), admit(batcher, 1, 1, 1, 1)]
            await until(lambda: batcher.running_rows == 8)
            queued = [admit(batcher, *[2] * n) for n in (3, 3, 3)]
            with pytest.raises(QueueFull):
                admit(batcher, 3, 3)
            assert batcher.queued_rows == 9
            queued.append(admit(batcher, 3))
            with pytest.raises(QueueFull):
                admit(batcher, 3)
            with pytest.raises(QueueFull):
                batcher.check_open()
            assert (batcher.queued_rows, batcher.in_flight) == (10, 6)
            engine.let_run(100)
            for ticket in (*running, *queued):
                await answer(ticket)

    run(test)


def test_a_refused_request_leaves_nothing_behind() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        async with batching(engine, queue_max=1) as batcher:
            tickets = []
            for _ in range(3):
                await asyncio.sleep(0)
                tickets.append(admit(batcher, 1))
                await asyncio.sleep(0)
            before = (batcher.in_flight, batcher.queued_rows, batcher.running_rows)
            assert before == (3, 1, 2)
            for _ in range(100):
                with pytest.raises(QueueFull):
                    admit(batcher, 2)
            assert (batcher.in_flight, batcher.queued_rows, batcher.running_rows) == before
            engine.let_run(100)
            for ticket in tickets:
                await answer(ticket)

    run(test)


def test_rows_that_could_not_be_written_are_free_again() -> None:
    class Unreadable(Asked):
        def write(self, inputs: Sequence[np.ndarray]) -> None:
            raise ConnectionError

    async def test() -> None:
        engine = GatedEngine(batch_max=2)
        async with batching(engine, queue_max=2) as batcher:
            first = admit(batcher, 1.0)
            for _ in range(3):
                with pytest.raises(ConnectionError):
                    batcher.admit(Unreadable(1), [])
            assert (batcher.queued_rows, batcher.in_flight) == (1, 1)
            second = admit(batcher, 2.0)
            engine.let_run(1)
            assert [await answer(first), await answer(second)] == [[1.0], [2.0]]

    run(test)


def test_a_request_is_never_larger_than_the_queue() -> None:
    async def test() -> None:
        async with batching(fake_engine(batch_max=8), queue_max=3) as batcher:
            assert batcher.rows_max == 3

    run(test)


def test_a_refusal_tells_when_to_come_back_by_the_pace() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        async with batching(engine, queue_max=2) as batcher:
            tickets = [admit(batcher, 1), admit(batcher, 1)]
            with pytest.raises(QueueFull) as unmeasured:
                batcher.check_open()
            assert unmeasured.value.retry_after_s == 1.0
            batcher.pace = Pace((2.0,), parallel=1, clock=time.monotonic)
            with pytest.raises(QueueFull) as measured:
                batcher.check_open()
            assert measured.value.retry_after_s == 4.0
            engine.let_run(100)
            for ticket in tickets:
                await answer(ticket)
            assert batcher.pace.likely_s(1, 1) < 2.0

    run(test)


def test_an_engine_that_fails_fails_its_batch_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with batching(fake_engine(batch_max=2, fail_on=666)) as batcher:
            bad, neighbour, later = admit(batcher, 666), admit(batcher, 1), admit(batcher, 2)
            for ticket in (bad, neighbour):
                with pytest.raises(EngineFailed, match="the engine failed: a row starts with 666"):
                    await answer(ticket)
            assert await answer(later) == [2]
            assert await ask(batcher, 3) == [3]

    with caplog.at_level(logging.CRITICAL, "nomadserve"):
        run(test)


def test_a_request_is_answered_exactly_once() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        async with batching(engine) as batcher:
            ticket = admit(batcher, 1)
            await until(lambda: engine.batches == [1])
            batcher.hang_up(ticket)
            with pytest.raises(HungUp):
                await answer(ticket)
            engine.let_run(1)
            await until(lambda: batcher.running_rows == 0)
            batcher.hang_up(ticket)
            assert batcher.in_flight == 0

    run(test)


def test_a_request_that_hangs_up_in_the_queue_frees_its_rows_at_once() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=2)
        async with batching(engine, queue_max=2) as batcher:
            running = admit(batcher, 1, 1)
            await until(lambda: engine.batches == [2])
            ahead = admit(batcher, 1, 1)
            await asyncio.sleep(0)
            queued = admit(batcher, 2, 2)
            batcher.hang_up(queued)
            assert batcher.queued_rows == 0
            replacement = admit(batcher, 3, 4)
            engine.let_run(100)
            for ticket, values in ((running, [1, 1]), (ahead, [1, 1]), (replacement, [3, 4])):
                assert await answer(ticket) == values

    run(test)


def test_a_request_that_hangs_up_while_it_runs_holds_its_slot_until_the_batch_is_back() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        async with batching(engine) as batcher:
            ticket = admit(batcher, 1)
            await until(lambda: engine.batches == [1])
            batcher.hang_up(ticket)
            assert (batcher.in_flight, batcher.running_rows) == (0, 1)
            assert ticket.slot.stage is Stage.RUNNING

    run(test)


def test_an_expired_request_fails_before_its_batch_and_its_rows_are_free() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        async with batching(engine, queue_max=1) as batcher:
            running = []
            for _ in range(2):
                running.append(admit(batcher, 1))
                await asyncio.sleep(0)
            late = admit(batcher, 2, deadline_at=time.monotonic() + 0.2)
            assert batcher.queued_rows == 1
            with pytest.raises(Expired):
                await answer(late)
            assert batcher.queued_rows == 0
            next_one = admit(batcher, 3)
            engine.let_run(100)
            for ticket in (*running, next_one):
                await answer(ticket)
            assert engine.batches == [1, 1, 1]

    run(test)


def test_a_later_deadline_is_kept_after_an_earlier_one_expired() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=8)
        async with batching(engine) as batcher:
            running = admit(batcher, 1)
            await until(lambda: engine.batches == [1])
            now = time.monotonic()
            deadlines = [now + 0.6, now + 0.3, now + FOREVER_S, math.inf]
            tickets = [admit(batcher, n, deadline_at=at) for n, at in enumerate(deadlines)]
            for late in (tickets[1], tickets[0]):
                with pytest.raises(Expired):
                    await answer(late)
            assert batcher.queued_rows == 2
            engine.let_run(100)
            assert [await answer(ticket) for ticket in (running, *tickets[2:])] == [[1], [2], [3]]
            assert engine.batches == [1, 2]

    run(test)


def test_a_request_whose_batch_was_launched_in_time_is_answered() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        async with batching(engine) as batcher:
            deadline_at = time.monotonic() + 0.5
            ticket = admit(batcher, 7, deadline_at=deadline_at)
            await until(lambda: engine.batches == [1])
            await until(lambda: time.monotonic() > deadline_at)
            engine.let_run(1)
            assert await answer(ticket) == [7]

    run(test)


def test_a_request_can_be_failed_from_outside() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        async with batching(engine) as batcher:
            ticket = admit(batcher, 1)
            batcher.fail(ticket, HungUp())
            batcher.fail(ticket, HungUp())
            with pytest.raises(HungUp):
                await answer(ticket)

    run(test)


def test_draining_refuses_what_is_new_and_finishes_what_is_there() -> None:
    async def test() -> None:
        async with batching(fake_engine(), delay_s=FOREVER_S) as batcher:
            ticket = admit(batcher, 5)
            batcher.start_draining()
            with pytest.raises(Draining):
                admit(batcher, 6)
            with pytest.raises(Draining):
                batcher.check_open()
            assert await answer(ticket) == [5]
            await batcher.wait_idle()

    run(test)


def test_metrics_tell_what_happened() -> None:
    async def test() -> None:
        series = Series()
        engine = GatedEngine(batch_max=2)
        batcher = Batcher(engine, queue_max=8, delay_s_max=0.0, metrics=series.model("m"))

        def sample(name: str) -> float | None:
            return series.registry.get_sample_value(f"nomadserve_{name}", {"model": "m"})

        tickets = [admit(batcher, n) for n in range(5)]
        await until(lambda: engine.batches == [2])
        assert (sample("in_flight"), sample("queued_rows"), sample("backlog_seconds")) == (5, 1, 0)
        batcher.pace = Pace((0.125, 0.25), parallel=1, clock=time.monotonic)
        assert sample("backlog_seconds") == 0.625
        engine.let_run(3)
        for ticket in tickets:
            await answer(ticket)
        assert (sample("in_flight"), sample("queued_rows"), sample("backlog_seconds")) == (0, 0, 0)
        assert (sample("batch_rows_count"), sample("batch_rows_sum")) == (3, 5)
        assert (sample("engine_seconds_count"), sample("queue_seconds_count")) == (3, 5)
        batcher.close()

    run(test)
