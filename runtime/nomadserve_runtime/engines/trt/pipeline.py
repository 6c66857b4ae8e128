"""One instance of an engine on one GPU: its streams, its buffers, and the batches on their way through them.

    copy in    ▏batch 2 ▏batch 3 ▏
    compute            ▏batch 1  ▏batch 2  ▏
    copy out                     ▏batch 1 ▏

Three streams, kept in order by events. There is a set of device buffers (a lane) for each of the two batches that are
under way at once. For every prepared batch size and lane there is an execution context of its own, whose shapes and
addresses never change again: TensorRT forbids to change a context that a graph was recorded from. All contexts share
one block of scratch memory, because the compute stream runs one of them at a time.

Everything here belongs to the engine's thread, but `Flight.wait`.
"""

import logging
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from nomadserve_runtime import policy
from nomadserve_runtime.calibration import make_up, median_seconds
from nomadserve_runtime.engines.trt import cuda
from nomadserve_runtime.engines.trt.batches import Candidate, batch_max_of, candidates, chosen
from nomadserve_runtime.engines.trt.graphs import CaptureFailed, Graph, capture
from nomadserve_runtime.engines.trt.signature import Signature, output_specs
from nomadserve_runtime.slots import Slot
from nomadserve_runtime.tensors import TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt

log = logging.getLogger("nomadserve.tensorrt")

# As many batches as the batcher hands over: one runs, one more is enqueued behind it.
LANES = policy.handed_max(1)


class Refused(Exception):
    """TensorRT does not take a call."""


class Lane:
    """Device buffers for one batch of any prepared size, and the events that keep its steps in order."""

    def __init__(self, *, inputs: list[int], outputs: list[int]) -> None:
        self.inputs = [cuda.zeroed(nbytes) for nbytes in inputs]
        self.outputs = [cuda.zeroed(nbytes) for nbytes in outputs]
        self.copied_in = cuda.event()
        self.computed = cuda.event()
        self.copied_out = cuda.event()

    def free(self) -> None:
        """Give the device memory back; no batch may be in it."""
        for buffer in (*self.inputs, *self.outputs):
            buffer.free()


class Execution:
    """A batch size on a lane, ready to be launched again and again."""

    def __init__(self, context: "trt.IExecutionContext") -> None:
        self._context = context
        self._graph: Graph | None = None

    def launch(self, stream: int) -> None:
        """Put it on the compute stream, given by its handle; returns at once."""
        if self._graph is not None:
            self._graph.launch(stream)
        else:
            require(self._context.execute_async_v3(stream), "execute_async_v3")

    def record(self, stream: "cuda.driver.Stream") -> None:
        """From now on launch it as a graph; raises `CaptureFailed` where it can't be one, and nothing has changed."""
        # What TensorRT puts off until the first run after a change of shapes must not be recorded.
        self.launch(stream.handle)
        stream.synchronize()
        self._graph = capture(cuda.library(), stream.handle, lambda: self._context.execute_async_v3(stream.handle))

    def free(self) -> None:
        """Forget the graph."""
        if self._graph is not None:
            self._graph.free()


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
        engine: what it runs; instances on the same GPU share it.
        outputs: what comes out.
        batch_max: rows of the largest batch.
        seconds: how long a batch of 1, 2, … `batch_max` rows takes.
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
        self.batch_max = batch_max_of(signature.profiles, max_batch)
        self.graph_failures = 0
        self._module = module
        self._errors = errors
        self.engine = engine
        self._host: list[np.ndarray] = []
        self._copy_in, self._compute, self._copy_out = (cuda.stream() for _ in range(3))
        found = candidates(signature.profiles, self.batch_max)
        self._allocate_scratch({candidate.profile for candidate in found})
        probe = self._context(found[-1])
        self.outputs = output_specs(probe, signature, rows=found[-1].rows, title=title)
        self._lanes = [self._lane() for _ in range(LANES)]
        self._free_lanes: SimpleQueue[int] = SimpleQueue()
        for place in range(LANES):
            self._free_lanes.put(place)
        self._executions = {candidate: self._prepared(candidate) for candidate in found}
        if has_graphs:
            self._record()
        timed = self._timed(found, warmup=warmup)
        self._chosen = chosen(timed, self.batch_max)
        self.seconds = [timed[candidate] for candidate in self._chosen]
        self.run_rows = [candidate.rows for candidate in self._chosen]
        for candidate in set(found) - set(self._chosen):
            for execution in self._executions.pop(candidate):
                execution.free()

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
        return self._enqueue(slot, rows, self._chosen[rows - 1])

    def close(self) -> None:
        """Give everything back; nothing may be on its way, and no array of `host_array` is touched any more."""
        for executions in self._executions.values():
            for execution in executions:
                execution.free()
        for lane in self._lanes:
            lane.free()
        self._scratch.free()
        for array in self._host:
            cuda.free(array)
        # Contexts, streams, events and the engine go in this thread, where the CUDA context is current.
        self.__dict__.clear()

    def _enqueue(self, slot: Slot, rows: int, candidate: Candidate) -> Flight:
        place = self._free_lanes.get()
        try:
            lane = self._lanes[place]
            for buffer, array in zip(lane.inputs, slot.inputs, strict=True):
                cuda.driver.memcpy_htod_async(int(buffer), _bytes(array[:rows]), self._copy_in)
            lane.copied_in.record(self._copy_in)
            self._compute.wait_for_event(lane.copied_in)
            self._executions[candidate][place].launch(self._compute.handle)
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

    def _allocate_scratch(self, profiles: set[int]) -> None:
        self._scratch_nbytes = max(self.engine.get_device_memory_size_for_profile_v2(profile) for profile in profiles)
        self._scratch = cuda.driver.mem_alloc(max(self._scratch_nbytes, 1))

    def _lane(self) -> Lane:
        def sizes(specs: tuple[TensorSpec, ...]) -> list[int]:
            return [max(1, self.batch_max * spec.row_size * spec.dtype.itemsize) for spec in specs]

        return Lane(inputs=sizes(self.signature.inputs), outputs=sizes(self.outputs))

    def _context(self, candidate: Candidate) -> "trt.IExecutionContext":
        """A context with the shapes of a batch size."""
        strategy = self._module.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self.engine.create_execution_context(strategy)
        if context is None:
            raise Refused("TensorRT refuses `create_execution_context`")
        context.set_device_memory(int(self._scratch), self._scratch_nbytes)
        stream = self._compute.handle
        require(context.set_optimization_profile_async(candidate.profile, stream), "set_optimization_profile_async")
        self._compute.synchronize()
        for spec in self.signature.inputs:
            require(context.set_input_shape(spec.name, (candidate.rows, *spec.row_shape)), "set_input_shape")
        return context

    def _prepared(self, candidate: Candidate) -> list[Execution]:
        """The batch size on every lane."""
        return [Execution(self._bound(self._context(candidate), lane)) for lane in self._lanes]

    def _bound(self, context: "trt.IExecutionContext", lane: Lane) -> "trt.IExecutionContext":
        specs = (*self.signature.inputs, *self.outputs)
        for spec, buffer in zip(specs, (*lane.inputs, *lane.outputs), strict=True):
            require(context.set_tensor_address(spec.name, int(buffer)), "set_tensor_address")
        return context

    def _record(self) -> None:
        for candidate, executions in self._executions.items():
            try:
                for execution in executions:
                    execution.record(self._compute)
            except CaptureFailed as failure:
                self.graph_failures += 1
                log.warning("batches of %d rows run without a CUDA graph: %s", candidate.rows, str(failure))

    def _timed(self, found: list[Candidate], *, warmup: int) -> dict[Candidate, float]:
        """How long each takes, copies included, on made-up rows."""
        host_arrays = len(self._host)
        slot = Slot(
            inputs=self.signature.inputs, outputs=self.outputs, capacity=self.batch_max, host_array=self.host_array
        )
        make_up(slot)

        def run(candidate: Candidate) -> Callable[[], None]:
            return lambda: self._enqueue(slot, candidate.rows, candidate).wait()

        timed = {candidate: median_seconds(run(candidate), warmup=warmup) for candidate in found}
        while len(self._host) > host_arrays:
            cuda.free(self._host.pop())
        return timed


def require(is_taken: bool, call: str) -> None:
    """Raise `Refused` where TensorRT did not take a call."""
    if not is_taken:
        raise Refused(f"TensorRT refuses `{call}`")


def _bytes(rows: np.ndarray) -> np.ndarray:
    """The same memory for those who don't know the type."""
    return rows.view(np.uint8)
