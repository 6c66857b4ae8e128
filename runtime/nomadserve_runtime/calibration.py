"""How long each batch size takes, measured before the replica is ready; and whether a thread is worth its hop."""

import asyncio
import os
import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Thread

import msgspec
import numpy as np

from nomadserve_runtime import policy
from nomadserve_runtime.engine import AheadEngine, Engine, slot_for
from nomadserve_runtime.interpreter import take_turns
from nomadserve_runtime.slots import Slot
from nomadserve_runtime.tensors import RowShapes, blank, is_floating

# Enough for a median that one disturbed run does not move, within a time that nobody waits for.
RUNS_MAX = 15
BUCKET_S_MAX = 0.15
HOPS = 50
# Fifty hops take about 10 ms where the machine has a core for the thread; whoever waits longer knows enough.
HOPS_S_MAX = 0.1
# How long the event loop works on a small request, in which no other thread gets the interpreter.
REQUEST_S = 50e-6
# A batch of milliseconds leaves nothing in the processor's caches of what hands it over and back: that takes three
# times as long as a hop alone, measured (0.45 ms of a single core, where the hop takes 0.14).
HOPS_PER_BATCH = 3


class BatchTime(msgspec.Struct, frozen=True):
    """One line of the table: a batch of `rows` rows takes `seconds`."""

    rows: int
    seconds: float


class ShapeTimes(msgspec.Struct, frozen=True):
    """A table for rows of these shapes, one for each input; that of no shapes is for rows that are all alike."""

    shapes: RowShapes
    table: tuple[BatchTime, ...]


class Calibration(msgspec.Struct, frozen=True):
    """What was measured at start.

    Attributes:
        table: by rows, ascending, up to the largest batch; empty where nothing was measured. Of the usual row shapes,
            where they may differ.
        by_shapes: where row shapes may differ, the tables of the smallest, the usual and the largest of each profile.
        hop_s: from a busy event loop to another thread and back.
        is_inline: the event loop computes batches itself.
    """

    table: tuple[BatchTime, ...] = ()
    hop_s: float = 0.0
    is_inline: bool = False
    by_shapes: tuple[ShapeTimes, ...] = ()

    @property
    def batch_s_max(self) -> float:
        """How long the largest batch takes; 0.0 for not measured."""
        return self.table[-1].seconds if self.table else 0.0

    def batch_s(self, rows: int) -> float:
        """How long a batch takes that is run with so many rows, what it is padded with included; 0.0: not measured.

        Between two sizes that were measured, in proportion.
        """
        if not self.table:
            return 0.0
        place = min(bisect_left(self.table, rows, key=_rows), len(self.table) - 1)
        upper = self.table[place]
        if rows >= upper.rows or place == 0:
            return upper.seconds
        lower = self.table[place - 1]
        share = (rows - lower.rows) / (upper.rows - lower.rows)
        return lower.seconds + (upper.seconds - lower.seconds) * share

    def worthwhile_rows(self, batch_max: int) -> int:
        """How many rows make a batch that no larger one outdoes in rows per second; the most, where nothing is known.

        On CPUs that is often one or two: more rows only take as much more time.
        """
        if not self.table:
            return batch_max
        overhead_s = HOPS_PER_BATCH * self.hop_s
        return policy.worthwhile_rows([(line.rows, line.seconds) for line in self.table], overhead_s=overhead_s)


UNCALIBRATED = Calibration()


def buckets(batch_max: int) -> list[int]:
    """1, 2, 4, … and `batch_max`."""
    powers = [2**power for power in range(batch_max.bit_length())]
    return powers if powers[-1] == batch_max else [*powers, batch_max]


async def calibrate(engine: Engine, *, warmup: int = 1) -> Calibration:
    """Time every batch size of `engine` on made-up rows; nothing else may use the engine meanwhile.

    warmup: runs of each size that are not timed: the first one allocates.
    Raises whatever the engine raises: an engine that fails on such rows is not fit to serve.
    """
    sizes = buckets(engine.batch_max)
    known = tuple(BatchTime(rows, seconds) for rows in sizes if (seconds := engine.known_seconds(rows)) is not None)
    is_known = len(known) == len(sizes)
    measured = [ShapeTimes((), known)] if is_known else _timed(engine, sizes, warmup=warmup)
    hop_s = await measure_hop()
    # The event loop must not stand still for the largest rows either.
    longest_s = max(times.table[-1].seconds for times in measured)
    is_short = policy.runs_inline(batch_s=longest_s, hop_s=hop_s, cores=len(os.sched_getaffinity(0)))
    return Calibration(
        measured[0].table,
        hop_s,
        is_short and not isinstance(engine, AheadEngine),
        tuple(times for times in measured if times.shapes),
    )


async def measure_hop() -> float:
    """The median way from the event loop to a thread and back, in seconds, while the loop has requests to work on."""
    loop = asyncio.get_running_loop()
    is_measuring = True

    def work_on_a_request() -> None:
        end_at = time.perf_counter() + REQUEST_S
        while time.perf_counter() < end_at:
            pass
        if is_measuring and end_at < give_up_at:
            loop.call_soon(work_on_a_request)

    inbox: SimpleQueue[asyncio.Future[None] | None] = SimpleQueue()

    def work() -> None:
        take_turns()
        while (future := inbox.get()) is not None:
            loop.call_soon_threadsafe(future.set_result, None)

    thread = Thread(target=work, name="hop", daemon=True)
    thread.start()
    seconds: list[float] = []
    give_up_at = time.perf_counter() + HOPS_S_MAX
    loop.call_soon(work_on_a_request)
    while not seconds or (len(seconds) < HOPS and time.perf_counter() < give_up_at):
        started_at = time.perf_counter()
        future = loop.create_future()
        inbox.put(future)
        await future
        seconds.append(time.perf_counter() - started_at)
    is_measuring = False
    inbox.put(None)
    thread.join()
    return statistics.median(seconds)


def median_seconds(run: Callable[[], None], *, warmup: int) -> float:
    """The median time of `run`, called a few times after `warmup` calls that nobody times."""
    for _ in range(warmup):
        run()
    seconds: list[float] = []
    give_up_at = time.perf_counter() + BUCKET_S_MAX
    while not seconds or (len(seconds) < RUNS_MAX and time.perf_counter() < give_up_at):
        started_at = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started_at)
    return statistics.median(seconds)


def make_up(slot: Slot) -> None:
    """Fill the inputs: numbers from 0 to 1 where they are floating; where not, what is always valid."""
    chance = np.random.default_rng(0)
    for array in slot.inputs:
        array[...] = chance.random(array.shape) if is_floating(array.dtype) else blank(array.dtype)


def _timed(engine: Engine, sizes: Sequence[int], *, warmup: int) -> list[ShapeTimes]:
    """The tables of all row shapes that are worth one, the most usual first."""
    slot = slot_for(engine)
    usual = [profile.usual for profile in engine.profiles]
    bounds = [shapes for profile in engine.profiles for shapes in (profile.least, profile.most)]
    measured = []
    for shapes in dict.fromkeys([*usual, *bounds] or [()]):
        slot.take_shapes(shapes)
        make_up(slot)
        table = [BatchTime(rows, median_seconds(partial(engine.run, slot, rows), warmup=warmup)) for rows in sizes]
        measured.append(ShapeTimes(shapes, tuple(table)))
    return measured


def _rows(line: BatchTime) -> int:
    return line.rows
