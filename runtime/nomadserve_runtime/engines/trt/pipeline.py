"""One instance of an engine on one GPU: its streams, its buffers, and the batches on their way through them.

    copy in    ▏batch 2 ▏batch 3 ▏
    compute            ▏batch 1  ▏batch 2  ▏
    copy out                     ▏batch 1 ▏

Three streams, kept in order by events. There is a set of device buffers (a lane) for each of the two batches that are
under way at once. Everything here belongs to the engine's thread, but `Flight.wait`.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from nomadserve_runtime import policy
from nomadserve_runtime.calibration import make_up, median_seconds
from nomadserve_runtime.engines.trt import cuda
from nomadserve_runtime.engines.trt.batches import Candidate, batch_max_of, batch_max_of_all, candidates
from nomadserve_runtime.engines.trt.executions import Contexts, Execution, Lane, Prepared, Refused, Shaped, sizes_of
from nomadserve_runtime.engines.trt.signature import Signature, output_specs
from nomadserve_runtime.slots import Slot
from nomadserve_runtime.tensors import RowShapes, largest

if TYPE_CHECKING:
    import tensorrt as trt

# As many batches as the batcher hands over: one runs, one more is enqueued behind it.
LANES = policy.handed_max(1)

# What launches a batch on the lane of that number.
Pick = Callable[[int], Execution]


class Flight:
    """A batch on its way."""

    def __init__(self, lane: Lane, lanes: "SimpleQueue[int]", place: int) -> None:
        self._lane = lane
        self._lanes = lanes
        self._place = place

    def wait(self) -> None:
        """Return when its outputs are written. In any thread with the context; raises what CUDA raises."""
        try:
            self._lane.copied_out.synchronize()
        finally:
            self._lanes.put(self._place)


class Pipeline:
    """Build it, and call it, in the engine's thread.

    max_batch: rows of the largest batch wanted.  warmup: runs of every batch size before it is timed.
    errors: what TensorRT called an error.

    Attributes:
        signature: what goes in, and the profiles.
        engine: what it runs; instances on the same GPU share it.
        outputs: what comes out.
        output_shapes_max: row shapes of the largest outputs, where they may differ; else empty.
        batch_max: rows of the largest batch.
        seconds: how long a batch of 1, 2, … `batch_max` rows takes; empty where that depends on their shapes.
        run_rows: how many rows it is padded to.
        graph_failures: prepared batch sizes that run without a graph, because it could not be recorded.
    """

    def __init__(
        self,
        module: Any,
        engine: "trt.ICudaEngine",
        signature: Signature,
        *,
        title: str,
        max_batch: int,
        warmup: int,
        has_graphs: bool,
        errors: deque[str],
    ) -> None:
        self.signature = signature
        self.engine = engine
        self.seconds: list[float] = []
        self._errors = errors
        self._host: list[np.ndarray] = []
        self._copy_in, self._compute, self._copy_out = (cuda.stream() for _ in range(3))
        self._contexts = Contexts(module, engine, signature, title=title, stream=self._compute)
        fit = batch_max_of_all if signature.row_profiles else batch_max_of
        self.batch_max = fit(signature.profiles, max_batch)
        self._lanes = self._make_lanes()
        self._free_lanes: SimpleQueue[int] = SimpleQueue()
        for place in range(LANES):
            self._free_lanes.put(place)
        self._launcher = self._shaped() if signature.row_profiles else self._prepared(warmup, has_graphs=has_graphs)
        self.run_rows = self._launcher.run_rows
        self.graph_failures = self._launcher.graph_failures

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Page-locked memory, valid until `close`."""
        nbytes = int(np.prod(shape)) * dtype.itemsize
        raw = cuda.page_locked(nbytes)
        self._host.append(raw)
        return raw[:nbytes].view(dtype).reshape(shape)

    def enqueue(self, slot: Slot, rows: int) -> Flight:
        """Put a batch on its way; returns when everything is enqueued. What it raises leaves nothing on its way.

        Rows beyond `rows` keep what an earlier batch had in them: valid numbers, that nobody reads the answer to.
        """
        return self._enqueue(slot, rows, partial(self._launcher.pick, slot, rows))

    def close(self) -> None:
        """Give everything back; nothing may be on its way, and no array of `host_array` is touched any more."""
        self._launcher.free()
        for lane in self._lanes:
            lane.free()
        self._contexts.free()
        for array in self._host:
            cuda.free(array)
        # Contexts, streams, events and the engine go in this thread, where the CUDA context is current.
        self.__dict__.clear()

    def _enqueue(self, slot: Slot, rows: int, pick: Pick) -> Flight:
        place = self._free_lanes.get()
        try:
            lane = self._lanes[place]
            for buffer, array in zip(lane.inputs, slot.inputs, strict=True):
                cuda.driver.memcpy_htod_async(int(buffer), _bytes(array[:rows]), self._copy_in)
            lane.copied_in.record(self._copy_in)
            self._compute.wait_for_event(lane.copied_in)
            pick(place).launch(self._compute.handle)
            lane.computed.record(self._compute)
            self._copy_out.wait_for_event(lane.computed)
            for array, buffer in zip(slot.outputs, lane.outputs, strict=True):
                cuda.driver.memcpy_dtoh_async(_bytes(array[:rows]), int(buffer), self._copy_out)
            lane.copied_out.record(self._copy_out)
        except BaseException as error:
            if not cuda.is_broken():  # waits until nothing of it is left in the streams
                self._free_lanes.put(place)
            if isinstance(error, Refused) and self._errors:
                raise Refused(f"{error}: {' '.join(self._errors[-1].split())}") from error
            raise
        return Flight(lane, self._free_lanes, place)

    # -- setup ----------------------------------------------------------------------------------------------------

    def _make_lanes(self) -> list[Lane]:
        """Buffers for the largest batch; on the way, what comes out of the engine is found out."""
        found = self._output_shapes()
        self.outputs = output_specs(self.signature, found)
        most = tuple(tuple(map(max, zip(*shapes, strict=True))) for shapes in zip(*found, strict=True))
        self.output_shapes_max: RowShapes = most if self.signature.row_profiles else ()
        inputs = sizes_of(
            self.signature.inputs, largest(self.signature.inputs, self.signature.row_profiles), self.batch_max
        )
        outputs = sizes_of(self.outputs, most, self.batch_max)
        return [Lane(inputs=inputs, outputs=outputs) for _ in range(LANES)]

    def _output_shapes(self) -> list[RowShapes]:
        """Row shapes of the outputs, for the bounds of each profile."""
        found = []
        for number, profile in enumerate(self.signature.profiles):
            context = self._contexts.make(number)
            rows = min(profile.most, max(self.batch_max, profile.least))
            fixed = tuple(spec.row_shape for spec in self.signature.inputs)
            of_rows = self.signature.row_profiles[number] if self.signature.row_profiles else None
            for shapes in (of_rows.least, of_rows.usual, of_rows.most) if of_rows else (fixed,):
                found.append(self._contexts.shape(context, rows=rows, shapes=shapes))
        return found

    def _shaped(self) -> Shaped:
        return Shaped(self._contexts, self._lanes, self.batch_max)

    def _prepared(self, warmup: int, *, has_graphs: bool) -> Prepared:
        prepared = Prepared(self._contexts, self._lanes, candidates(self.signature.profiles, self.batch_max))
        if has_graphs:
            prepared.record()
        self.seconds = prepared.choose(self._timed(prepared, warmup=warmup), self.batch_max)
        return prepared

    def _timed(self, prepared: Prepared, *, warmup: int) -> dict[Candidate, float]:
        """How long each batch size takes, copies included, on made-up rows."""
        host_arrays = len(self._host)
        slot = Slot(
            inputs=self.signature.inputs, outputs=self.outputs, capacity=self.batch_max, host_array=self.host_array
        )
        make_up(slot)

        def run(candidate: Candidate) -> None:
            self._enqueue(slot, candidate.rows, partial(prepared.of, candidate)).wait()

        timed = {each: median_seconds(partial(run, each), warmup=warmup) for each in prepared.candidates}
        while len(self._host) > host_arrays:
            cuda.free(self._host.pop())
        return timed


def _bytes(rows: np.ndarray) -> np.ndarray:
    """The same memory for those who don't know the type."""
    return rows.view(np.uint8)
