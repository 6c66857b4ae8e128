"""The batcher before an engine with threads of its own, that computes several batches at once."""

import asyncio
import time
from collections.abc import Callable

import pytest

from nomadserve_runtime.calibration import calibrate
from nomadserve_runtime.engine import AheadEngine
from nomadserve_runtime.engines.fake import FakeEngine
from nomadserve_runtime.errors import Draining, EngineFailed, EngineLost
from nomadserve_runtime.slots import Slot
from tests.unit.runtime.batching import admit, answer, batching, run, until
from tests.unit.runtime.models import ONE_NUMBER, GatedEngine, fake_engine


class Gpus(FakeEngine):
    """Takes batches, and ends them when the test says so.

    Attributes:
        started: the batches that it has, oldest first.
    """

    graph_failures = 0

    def __init__(self, *, parallel: int, batch_max: int = 2) -> None:
        super().__init__(fake_engine()._behaviour, batch_max=batch_max)
        self.parallel = parallel
        self.started: list[tuple[Slot, int, Callable[[Exception | None], None]]] = []

    def start(self, slot: Slot, rows: int, done: Callable[[Exception | None], None]) -> None:
        self.started.append((slot, rows, done))

    def end(self, failure: Exception | None = None) -> None:
        slot, rows, done = self.started.pop(0)
        slot.started_at = slot.ended_at = time.monotonic()
        if failure is None:
            self.run(slot, rows)
        done(failure)

    @property
    def rows(self) -> list[int]:
        return [rows for _, rows, _ in self.started]


def test_it_is_an_engine_that_takes_batches_ahead() -> None:
    assert isinstance(Gpus(parallel=1), AheadEngine)
    assert not isinstance(fake_engine(), AheadEngine)


def test_every_gpu_gets_what_is_there_before_a_batch_waits_for_more_rows() -> None:
    async def test() -> None:
        engine = Gpus(parallel=2)
        async with batching(engine) as batcher:
            tickets = []
            for value in range(3):
                tickets.append(admit(batcher, value))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert engine.rows == [1, 1]
            assert batcher.queued_rows == 1
            for _ in range(3):
                await until(lambda: engine.started != [])
                engine.end()
            assert [await answer(ticket) for ticket in tickets] == [[0], [1], [2]]

    run(test)


@pytest.mark.parametrize("parallel", [1, 2, 3])
def test_one_batch_is_enqueued_behind_each_that_runs_and_no_more(parallel: int) -> None:
    async def test() -> None:
        engine = Gpus(parallel=parallel)
        async with batching(engine, queue_max=20) as batcher:
            tickets = [admit(batcher, value, value) for value in range(8)]
            await until(lambda: len(engine.started) == 2 * parallel)
            await asyncio.sleep(0.01)
            assert engine.rows == [2] * 2 * parallel
            for _ in range(8):
                await until(lambda: engine.started != [])
                engine.end()
            assert [await answer(ticket) for ticket in tickets] == [[value, value] for value in range(8)]

    run(test)


def test_it_never_runs_on_the_event_loop() -> None:
    assert asyncio.run(calibrate(fake_engine())).is_inline
    assert not asyncio.run(calibrate(Gpus(parallel=1))).is_inline


def test_when_the_engine_is_lost_everybody_is_told_and_nobody_is_taken_in() -> None:
    async def test() -> None:
        engine = Gpus(parallel=1)
        lost: list[EngineLost] = []
        async with batching(engine, queue_max=20) as batcher:
            batcher.on_lost = lost.append
            tickets = [admit(batcher, value, value) for value in range(5)]
            await until(lambda: len(engine.started) == 2)
            failure = EngineLost("GPU 0 failed: it is on fire")
            engine.end(failure)
            await until(lambda: lost == [failure])
            assert engine.rows == [2], "nothing more is launched"
            with pytest.raises(Draining):
                admit(batcher, 1)
            engine.end(failure)
            for ticket in tickets:
                with pytest.raises(EngineFailed, match="the engine failed: GPU 0 failed: it is on fire"):
                    await answer(ticket)

    run(test)


def test_an_engine_in_a_thread_is_lost_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1, **ONE_NUMBER)
        lost: list[EngineLost] = []

        def burn(slot: Slot, rows: int) -> None:
            raise EngineLost("gone")

        monkeypatch.setattr(engine, "run", burn)
        async with batching(engine) as batcher:
            batcher.on_lost = lost.append
            with pytest.raises(EngineFailed, match="gone"):
                await answer(admit(batcher, 1))
            assert len(lost) == 1

    run(test)
