"""How a batch is launched: as what was prepared for its size, or by a context that gets its shapes first.

TensorRT forbids to change a context that a CUDA graph was recorded from. So where all rows have the same shape, every
batch size has contexts of its own, one for each lane, whose shapes and addresses never change again. Where rows differ,
there is one for each profile and lane, without a graph.

All contexts share one block of scratch memory, because the compute stream runs one of them at a time. Everything here
belongs to the engine's thread.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nomadserve_runtime.engines.trt import cuda
from nomadserve_runtime.engines.trt.batches import Candidate, chosen
from nomadserve_runtime.engines.trt.graphs import CaptureFailed, Graph, capture
from nomadserve_runtime.engines.trt.signature import Signature, output_row_shapes
from nomadserve_runtime.slots import Slot
from nomadserve_runtime.tensors import RowShapes, TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt

log = logging.getLogger("nomadserve.tensorrt")


class Refused(Exception):
    """TensorRT does not take a call."""


class Lane:
    """Device buffers for one batch of any size, and the events that keep its steps in order."""

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


class Contexts:
    """Makes execution contexts that share their scratch memory.

    title: names the model in errors.  stream: what they run on, one at a time.
    """

    def __init__(
        self,
        module: Any,
        engine: "trt.ICudaEngine",
        signature: Signature,
        *,
        title: str,
        stream: "cuda.driver.Stream",
    ) -> None:
        self.engine = engine
        self.signature = signature
        self.title = title
        self.stream = stream
        self._strategy = module.ExecutionContextAllocationStrategy.USER_MANAGED
        profiles = range(len(signature.profiles))
        self._scratch_nbytes = max(engine.get_device_memory_size_for_profile_v2(profile) for profile in profiles)
        self._scratch = cuda.driver.mem_alloc(max(self._scratch_nbytes, 1))

    def make(self, profile: int) -> "trt.IExecutionContext":
        """A context in that profile, without shapes."""
        context = self.engine.create_execution_context(self._strategy)
        if context is None:
            raise Refused("TensorRT refuses `create_execution_context`")
        context.set_device_memory(int(self._scratch), self._scratch_nbytes)
        require(context.set_optimization_profile_async(profile, self.stream.handle), "set_optimization_profile_async")
        self.stream.synchronize()
        return context

    def shape(self, context: "trt.IExecutionContext", *, rows: int, shapes: RowShapes) -> RowShapes:
        """Set the shapes of the inputs; the row shapes of the outputs that follow from them."""
        for spec, shape in zip(self.signature.inputs, shapes, strict=True):
            require(context.set_input_shape(spec.name, (rows, *shape)), "set_input_shape")
        return output_row_shapes(context, self.signature, rows=rows, title=self.title)

    def bind(self, context: "trt.IExecutionContext", lane: Lane) -> None:
        """Have it work on the buffers of a lane."""
        names = [spec.name for spec in self.signature.inputs] + [name for name, _ in self.signature.outputs]
        for name, buffer in zip(names, (*lane.inputs, *lane.outputs), strict=True):
            require(context.set_tensor_address(name, int(buffer)), "set_tensor_address")

    def free(self) -> None:
        """Give the scratch memory back; none of the contexts is run any more."""
        self._scratch.free()


class Execution:
    """A batch that is ready to be launched."""

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


class Prepared:
    """Every batch size, ready; for rows that all have the same shape.

    Attributes:
        candidates: the batch sizes.
        run_rows: how many rows a batch of 1, 2, … rows is padded to; by `choose`.
        graph_failures: batch sizes that run without a graph, because it could not be recorded.
    """

    def __init__(self, contexts: Contexts, lanes: Sequence[Lane], found: Sequence[Candidate]) -> None:
        self.candidates = tuple(found)
        self.run_rows: list[int] = []
        self.graph_failures = 0
        self._chosen: list[Candidate] = []
        self._contexts = contexts
        self._executions = {candidate: [self._execution(candidate, lane) for lane in lanes] for candidate in found}

    def record(self) -> None:
        """Make graphs of them, as far as that goes."""
        for candidate, executions in self._executions.items():
            try:
                for execution in executions:
                    execution.record(self._contexts.stream)
            except CaptureFailed as failure:
                self.graph_failures += 1
                log.warning("batches of %d rows run without a CUDA graph: %s", candidate.rows, str(failure))

    def choose(self, seconds: Mapping[Candidate, float], batch_max: int) -> list[float]:
        """Keep those that some batch is done soonest with; how long one of 1, 2, … rows takes then."""
        self._chosen = chosen(seconds, batch_max)
        self.run_rows = [candidate.rows for candidate in self._chosen]
        for candidate in set(self.candidates) - set(self._chosen):
            _free(self._executions.pop(candidate))
        return [seconds[candidate] for candidate in self._chosen]

    def of(self, candidate: Candidate, place: int) -> Execution:
        """That batch size on a lane."""
        return self._executions[candidate][place]

    def pick(self, slot: Slot, rows: int, place: int) -> Execution:
        """What launches a batch on a lane."""
        return self._executions[self._chosen[rows - 1]][place]

    def free(self) -> None:
        """Forget all graphs."""
        for executions in self._executions.values():
            _free(executions)

    def _execution(self, candidate: Candidate, lane: Lane) -> Execution:
        context = self._contexts.make(candidate.profile)
        shapes = tuple(spec.row_shape for spec in self._contexts.signature.inputs)
        self._contexts.shape(context, rows=candidate.rows, shapes=shapes)
        self._contexts.bind(context, lane)
        return Execution(context)


class Shaped:
    """A context for each profile and lane, that gets the shapes of every batch; for rows whose shapes differ.

    Attributes:
        run_rows: how many rows a batch of 1, 2, … rows is padded to at least.
        graph_failures: none; it has no graphs.
    """

    graph_failures = 0

    def __init__(self, contexts: Contexts, lanes: Sequence[Lane], batch_max: int) -> None:
        self._contexts = contexts
        self._profiles = contexts.signature.profiles
        least = min(profile.least for profile in self._profiles)
        self.run_rows = [max(rows, least) for rows in range(1, batch_max + 1)]
        self._of_profiles = [[contexts.make(number) for _ in lanes] for number in range(len(self._profiles))]
        for of_lanes in self._of_profiles:
            for context, lane in zip(of_lanes, lanes, strict=True):
                contexts.bind(context, lane)

    def pick(self, slot: Slot, rows: int, place: int) -> Execution:
        """What launches a batch on a lane, in the smallest profile that takes its rows; lays its outputs out."""
        number = self._profile_for(slot.shapes)
        context = self._of_profiles[number][place]
        run_rows = max(rows, self._profiles[number].least)
        slot.shape_outputs(self._contexts.shape(context, rows=run_rows, shapes=slot.shapes))
        return Execution(context)

    def free(self) -> None:
        """It holds nothing that has to be given back."""

    def _profile_for(self, shapes: RowShapes) -> int:
        takes = [number for number, each in enumerate(self._contexts.signature.row_profiles) if each.takes(shapes)]
        return min(takes, key=self._size)

    def _size(self, number: int) -> int:
        profile = self._contexts.signature.row_profiles[number]
        return self._profiles[number].most * sum(math.prod(shape) for shape in profile.most)


def require(is_taken: bool, call: str) -> None:
    """Raise `Refused` where TensorRT did not take a call."""
    if not is_taken:
        raise Refused(f"TensorRT refuses `{call}`")


def _free(executions: Iterable[Execution]) -> None:
    for execution in executions:
        execution.free()


def sizes_of(specs: Sequence[TensorSpec], shapes: RowShapes, rows: int) -> list[int]:
    """Bytes of each tensor, for that many rows of these shapes."""
    return [max(1, rows * math.prod(shape) * spec.dtype.itemsize) for spec, shape in zip(specs, shapes, strict=True)]
