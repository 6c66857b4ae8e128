"""What a batcher foretells: from when an engine that had nothing to do is busy, and what stands before a request."""

import asyncio
import math

import pytest

from nomadserve_runtime.batcher import Batcher
from nomadserve_runtime.calibration import BatchTime, Calibration
from nomadserve_runtime.errors import HungUp
from nomadserve_runtime.metrics import Series
from tests.unit.runtime.batching import admit, answer, run, until
from tests.unit.runtime.models import GatedEngine

BATCH_S = 0.1


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def batcher_of(engine: GatedEngine, time: Time, *, delay_s: float = 0.0) -> Batcher:
    """Batches of four, whatever is in them as quick as any other."""
    table = tuple(BatchTime(rows, BATCH_S) for rows in (1, 2, 4))
    return Batcher(
        engine,
        queue_max=64,
        delay_s_max=delay_s,
        metrics=Series().model("m"),
        calibration=Calibration(table=table),
        clock=time,
    )


def test_an_hour_without_requests_is_no_batch_of_an_hour_though_the_last_who_waited_hung_up() -> None:
    async def test() -> None:
        time, engine = Time(), GatedEngine(batch_max=4)
        batcher = batcher_of(engine, time, delay_s=0.5)
        first = [admit(batcher, value) for value in range(4)]
        await until(lambda: engine.batches == [4])
        late = admit(batcher, 5)
        time.now += BATCH_S
        engine.let_run(1)
        await answer(first[0])
        batcher.hang_up(late)
        with pytest.raises(HungUp):
            await answer(late)
        time.now += 3600
        again = [admit(batcher, value) for value in range(4)]
        await until(lambda: engine.batches == [4, 4])
        time.now += BATCH_S
        engine.let_run(1)
        await answer(again[0])
        assert batcher.pace.batch_s == pytest.approx(BATCH_S)
        assert batcher.pace.latest_s(8, 2) == pytest.approx(2 * BATCH_S)

    run(test)


def test_a_burst_after_a_pause_is_promised_all_of_its_batches() -> None:
    async def test() -> None:
        time, engine = Time(), GatedEngine(batch_max=4)
        batcher = batcher_of(engine, time)
        time.now += 60
        burst = [admit(batcher, value) for value in range(12)]
        assert burst[-1].answer_by - time.now == pytest.approx(3 * BATCH_S)
        engine.let_run(3)
        await asyncio.gather(*map(answer, burst))

    run(test)


def test_a_deadline_counts_from_the_batch_that_a_request_joins_though_others_stand_behind() -> None:
    async def test() -> None:
        time, engine = Time(), GatedEngine(batch_max=4)
        batcher = batcher_of(engine, time)
        ahead = [admit(batcher, 0, 0, 0, 0) for _ in range(2)]
        await until(lambda: batcher.running_rows == 8)
        ahead += [admit(batcher, 1, 1, 1), admit(batcher, 2, 2, 2)]
        assert batcher.predicted_wait_s(rows=1, due_at=math.inf) == pytest.approx(BATCH_S)
        joined = admit(batcher, 9, deadline_at=time.now + 1.5 * BATCH_S)
        assert joined.slot is ahead[2].slot
        engine.let_run(4)
        await asyncio.gather(*map(answer, [*ahead, joined]))

    run(test)
