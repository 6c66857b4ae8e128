import asyncio

from nomadserve_runtime.lifecycle import Lifecycle, Stage
from tests.unit.runtime.http import Bench
from tests.unit.runtime.models import GatedEngine

ONE_ROW = {"inputs": {"x": [[5]]}}


async def reached(lifecycle: Lifecycle, stage: Stage) -> None:
    async with asyncio.timeout(20):
        while lifecycle.stage is not stage:
            await asyncio.sleep(0.001)


async def drained(bench: Bench, *, delay_s: float = 0.0, timeout_s: float = 20.0) -> bool:
    batchers = [model.batcher for model in bench.models.values()]
    return await bench.lifecycle.drain(batchers, delay_s=delay_s, timeout_s=timeout_s)


def test_a_process_is_ready_from_the_start() -> None:
    assert Lifecycle().is_ready


def test_draining_goes_from_ready_over_answering_to_refusing_and_ends_with_the_last_answer() -> None:
    async def test() -> None:
        engine = GatedEngine()
        bench = Bench(m=engine)
        accepted = asyncio.create_task(bench.client("POST", "/v1/inference", ONE_ROW))
        await asyncio.sleep(0.01)
        draining = asyncio.create_task(drained(bench, delay_s=0.2))
        await reached(bench.lifecycle, Stage.LEAVING)
        late = asyncio.create_task(bench.client("POST", "/v1/inference", ONE_ROW))
        await reached(bench.lifecycle, Stage.DRAINING)
        refused = await bench.client("POST", "/v1/inference", ONE_ROW)
        assert (refused.status, refused.content["reason"]) == (503, "draining")
        assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
        assert not draining.done()
        engine.let_run(10)
        assert [(await asked).status for asked in (accepted, late)] == [200, 200]
        assert await draining
        bench.close()

    asyncio.run(test())


def test_draining_gives_up_in_time() -> None:
    async def test() -> None:
        engine = GatedEngine()
        bench = Bench(m=engine)
        stuck = asyncio.create_task(bench.client("POST", "/v1/inference", ONE_ROW))
        await asyncio.sleep(0.01)
        assert not await drained(bench, timeout_s=0.05)
        engine.let_run(1)
        await stuck
        bench.close()

    asyncio.run(test())
