"""What the tests of the batcher share."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from nomadserve_runtime.batcher import Batcher
from nomadserve_runtime.engine import Engine
from nomadserve_runtime.metrics import Series
from nomadserve_runtime.slots import Stage, Ticket
from nomadserve_runtime.tensors import RowShapes
from tests.unit.runtime.models import GatedEngine

FOREVER_S = 3600.0


@asynccontextmanager
async def batching(engine: Engine, *, queue_max: int = 8, delay_s: float = 0.0) -> AsyncIterator[Batcher]:
    """A batcher that is closed at the end; whatever happened, every slot is back by then."""
    batcher = Batcher(engine, queue_max=queue_max, delay_s_max=delay_s, metrics=Series().model("m"))
    try:
        yield batcher
    finally:
        if isinstance(engine, GatedEngine):
            engine.let_run(1000)
        async with asyncio.timeout(20):
            await batcher.wait_idle()
            await until(lambda: batcher.running_rows == 0)
        batcher.close()
        queue = batcher._queue
        assert (queue.rows, queue.out, queue.open) == (0, 0, [])
        assert {slot.stage for slot in queue._free} == {Stage.FREE}
        assert (batcher.in_flight, batcher.running_rows) == (0, 0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not claim():
            await asyncio.sleep(0.001)


def rows(*values: float) -> list[np.ndarray]:
    return [np.array(values, np.float32).reshape(-1, 1)]


class Asked(Ticket):
    """A request of a test: what it was answered comes out of `done`."""

    def __init__(self, rows: int, *, deadline_at: float = math.inf, priority: int = 0, shapes: RowShapes = ()) -> None:
        super().__init__(rows, deadline_at=deadline_at, priority=priority, shapes=shapes)
        self.done: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()

    def answered(self) -> None:
        if self.done.cancelled():  # nobody waits for it any more
            return
        assert not self.done.done(), "answered twice"
        if self.fault is not None:
            self.done.set_exception(self.fault)
        else:
            self.done.set_result(self.outputs()[0][:, 0].tolist())


def admit(batcher: Batcher, *values: float, deadline_at: float = math.inf, priority: int = 0) -> Asked:
    ticket = Asked(len(values), deadline_at=deadline_at, priority=priority)
    batcher.admit(ticket, rows(*values))
    return ticket


async def answer(ticket: Asked) -> list[float]:
    async with asyncio.timeout(20):
        return await ticket.done


async def ask(batcher: Batcher, *values: float) -> list[float]:
    return await answer(admit(batcher, *values))
