import asyncio
import math
import random
import time

import pytest

from nomadserve_runtime.batcher import Batcher
from nomadserve_runtime.errors import Expired, Hopeless, QueueFull
from tests.unit.runtime.batching import admit, answer, batching, run
from tests.unit.runtime.models import fake_engine


async def customer(batcher: Batcher, chance: random.Random, tally: dict[str, int]) -> None:
    """Ask once, perhaps with a short deadline, perhaps cancelled half way."""
    values = [chance.random() for _ in range(chance.randint(1, batcher.rows_max))]
    patience_s = chance.choice([math.inf, math.inf, 0.002])
    try:
        ticket = admit(batcher, *values, deadline_at=time.monotonic() + patience_s)
    except QueueFull:
        assert batcher.queued_rows + len(values) > batcher._queue.rows_max
        tally["refused"] += 1
        return
    except Hopeless:  # starved: the deadline passed before it came to the batcher
        tally["expired"] += 1
        return
    try:
        answered = await answer(ticket)
    except Expired:
        tally["expired"] += 1
    except asyncio.CancelledError:
        batcher.hang_up(ticket)
        raise
    else:
        assert answered == pytest.approx(values)
        tally["ok"] += 1


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_with_cancellations_and_deadlines_answers_right_and_returns_every_slot(seed: int) -> None:
    async def test() -> None:
        chance = random.Random(seed)
        tally = dict.fromkeys(("ok", "refused", "expired"), 0)
        async with batching(fake_engine(batch_max=5, delay_ms=0.5), queue_max=23) as batcher:
            tasks: set[asyncio.Task[None]] = set()
            for _ in range(2000):
                tasks.add(asyncio.create_task(customer(batcher, chance, tally)))
                if chance.random() < 0.2:
                    chance.choice(list(tasks)).cancel()
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.random() * 0.002)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
        assert min(tally.values()) > 0

    run(test)
