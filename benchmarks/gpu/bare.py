"""The limit from below: the engine in a loop that keeps it busy, without any server, as `trtexec` does it."""

import time
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from benchmarks.gpu.networks import Network
from nomadserve_runtime.engine import AheadEngine
from nomadserve_runtime.policy import handed_max
from nomadserve_runtime.slots import HostArray, Slot

# Clocks of a GPU rise within the first moments of work.
WARM_UP_S = 0.5


@dataclass(frozen=True)
class Bare:
    """What the engine alone does with batches of one size.

    Attributes:
        rows_per_s: with as many batches under way as the server keeps.
        batch_ms: how long one takes, alone, copies included; the median.
    """

    rows_per_s: float
    batch_ms: float


def measure(engine: AheadEngine, network: Network, *, rows: int, seconds: float, is_pinned: bool = True) -> Bare:
    """Run batches of `rows` for about that long."""
    host_array: HostArray = engine.host_array if is_pinned else _pageable
    slots = [_filled(engine, network, host_array) for _ in range(handed_max(engine.parallel))]
    _rows_per_s(engine, slots, rows, WARM_UP_S)
    return Bare(_rows_per_s(engine, slots, rows, seconds), _batch_ms(engine, slots[0], rows, seconds / 4))


def _rows_per_s(engine: AheadEngine, slots: list[Slot], rows: int, seconds: float) -> float:
    done: SimpleQueue[tuple[Slot, Exception | None]] = SimpleQueue()

    def start(slot: Slot) -> None:
        engine.start(slot, rows, lambda failure: done.put((slot, failure)))

    started_at = time.perf_counter()
    for slot in slots:
        start(slot)
    batches, under_way = 0, len(slots)
    while under_way:
        slot, failure = done.get()
        if failure is not None:
            raise failure
        batches, under_way = batches + 1, under_way - 1
        if time.perf_counter() - started_at < seconds:
            start(slot)
            under_way += 1
    return batches * rows / (time.perf_counter() - started_at)


def _batch_ms(engine: AheadEngine, slot: Slot, rows: int, seconds: float) -> float:
    times: list[float] = []
    give_up_at = time.perf_counter() + seconds
    while not times or time.perf_counter() < give_up_at:
        started_at = time.perf_counter()
        engine.run(slot, rows)
        times.append(time.perf_counter() - started_at)
    return float(np.median(times)) * 1e3


def _filled(engine: AheadEngine, network: Network, host_array: HostArray) -> Slot:
    slot = Slot(inputs=engine.inputs, outputs=engine.outputs, capacity=engine.batch_max, host_array=host_array)
    for array, rows in zip(slot.inputs, network.rows, strict=True):
        array[...] = np.resize(rows, array.shape)
    return slot


def _pageable(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.empty(shape, dtype)
