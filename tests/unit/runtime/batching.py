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


def admit(batcher: Batcher, *values: float, deadline_at: float = math.inf) -> Ticket:
    return batcher.admit(rows(*values), rows=len(values), deadline_at=deadline_at)


async def answer(batcher: Batcher, ticket: Ticket) -> list[float]:
    try:
        async with asyncio.timeout(20):
            await ticket.done
        values: list[float] = ticket.outputs()[0][:, 0].tolist()
        return values
    finally:
        batcher.give_up(ticket)


async def ask(batcher: Batcher, *values: float) -> list[float]:
    return await answer(batcher, admit(batcher, *values))
