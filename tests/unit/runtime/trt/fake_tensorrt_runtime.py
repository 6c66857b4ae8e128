"""TensorRT without a GPU: just the calls that the runtime makes once a plan is there, on a `fake_cuda` machine.

A plan is JSON: its tensors, its profiles, and what TensorRT and GPU it is for. Element i of an output row is the sum
over all elements of all inputs of that row, plus i, as with the engine `fake`. A row whose first element is 666 crashes
the GPU.
"""

import json
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from nomadserve_runtime.tensors import DTYPES
from tests.unit.runtime.trt.fake_cuda import GARBAGE, Machine

VERSION = "10.13.0.35"
CAPABILITY = "9.0"
CRASHES = 666


def write_plan(path: Path, **changes: Any) -> Path:
    """One FP32 tensor of 4 numbers in, one of 2 out, batches of 1 to 8, where not told otherwise.

    A size of -1 beside the batch is open; in outputs it is the same as in the inputs.
    """
    plan: dict[str, Any] = {
        "version": VERSION,
        "capability": CAPABILITY,
        "inputs": [{"name": "x", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "shape": [-1, 2]}],
        "profiles": [{"x": [[1, 4], [4, 4], [8, 4]]}],
    }
    path.write_text(json.dumps(plan | changes))
    return path


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        pass

    def log(self, severity: "ILogger.Severity", msg: str) -> None:
        raise NotImplementedError  # abstract in TensorRT, too: whoever logs says how


class DataType(Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64, INT4, FP4 = range(11)


class TensorIOMode(Enum):
    NONE, INPUT, OUTPUT = range(3)


class TensorLocation(Enum):
    DEVICE, HOST = range(2)


class TensorFormat(Enum):
    LINEAR, CHW4 = range(2)


class ExecutionContextAllocationStrategy(Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class Dims:
    def __init__(self, shape: Any = ()) -> None:
        self._shape = list(shape)

    def __len__(self) -> int:
        return len(self._shape)

    def __getitem__(self, arg0: int) -> int:
        size: int = self._shape[arg0]
        return size


NAMES = {"FLOAT": "FP32", "HALF": "FP16"}


class ICudaEngine:
    def __init__(self, plan: dict[str, Any], machine: Machine, logger: ILogger) -> None:
        self.plan = plan
        self.machine = machine
        self.logger = logger
        self._tensors = {tensor["name"]: tensor for tensor in (*plan["inputs"], *plan["outputs"])}

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return max(1, len(self.plan["profiles"]))

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        is_input = any(tensor["name"] == name for tensor in self.plan["inputs"])
        return TensorIOMode.INPUT if is_input else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self._tensors[name].get("dtype", "FLOAT")]

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims(self._tensors[name]["shape"])

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation[self._tensors[name].get("location", "DEVICE")]

    def get_tensor_format(self, name: str) -> TensorFormat:
        return TensorFormat[self._tensors[name].get("format", "LINEAR")]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        return [Dims(shape) for shape in self.plan["profiles"][profile_index][name]]

    def is_shape_inference_io(self, name: str) -> bool:
        return bool(self._tensors[name].get("is_shape", False))

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return int(self.plan.get("scratch", 4096))

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> "IExecutionContext | None":
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        if self.plan.get("has_no_contexts"):
            self.logger.log(ILogger.Severity.ERROR, "Error Code 2: OutOfMemory (Requested size was 4096 bytes.)")
            return None
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._profile = 0
        self._scratch = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._is_recorded = False
        self._ran = False

    def set_device_memory(self, memory: int, size: int) -> None:
        self._change()
        self._engine.machine.bytes_at(memory, size)
        self._scratch = size

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._change()
        assert stream_handle in self._engine.machine.streams
        self._profile = profile_index
        self._shapes.clear()
        return profile_index < self._engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._change()
        declared = next(tensor["shape"] for tensor in self._engine.plan["inputs"] if tensor["name"] == name)
        if any(size >= 0 for size in declared) and [size for size in declared if size >= 0] != [
            size for size, wanted in zip(shape, declared, strict=True) if wanted >= 0
        ]:
            return False
        if -1 in declared:
            least, _, most = self._engine.plan["profiles"][self._profile][name]
            if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
                return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._change()
        self._addresses[name] = memory
        return True

    def get_tensor_shape(self, name: str) -> Dims:
        if name in self._shapes:
            return Dims(self._shapes[name])
        declared = list(self._engine.get_tensor_shape(name))
        if self._engine._tensors[name].get("is_data_dependent", False):
            return Dims([-1, *declared[1:]])
        return Dims(
            [self._output_rows(Dims(declared)), *(self._open_size() if size < 0 else size for size in declared[1:])]
        )

    def execute_async_v3(self, stream_handle: int) -> bool:
        machine = self._engine.machine
        stream = machine.streams[stream_handle]
        if stream.recording is not None:
            assert self._ran, "recorded before a first run: what is put off until then would be recorded, too"
            self._is_recorded = True
        assert self._scratch >= self._engine.get_device_memory_size_for_profile_v2(self._profile)
        assert set(self._addresses) == set(self._engine._tensors), "a tensor has no address"
        if self._engine.plan.get("is_never_run"):
            self._engine.logger.log(ILogger.Severity.ERROR, "Error Code 1: Cuda Runtime (invalid argument)")
            return False
        self._ran = True
        stream.add(self._compute)
        return True

    def _compute(self) -> None:
        arrays = {name: self._array(name) for name in self._addresses}
        inputs = [arrays[tensor["name"]] for tensor in self._engine.plan["inputs"]]
        rows = len(inputs[0])
        if any((array.view(np.uint8) == GARBAGE).all() for array in inputs):
            self._engine.machine.problems.append("memory is read that nobody wrote")
        if np.any(inputs[0].reshape(rows, -1)[:, 0] == CRASHES):
            self._engine.machine.crashed = True
            return
        totals = sum(array.reshape(rows, -1).sum(axis=1, dtype=np.float64) for array in inputs)
        for tensor in self._engine.plan["outputs"]:
            array = arrays[tensor["name"]]
            values = np.asarray(totals)[:, None] + np.arange(int(np.prod(array.shape[1:])))
            array[...] = values.reshape(array.shape).astype(array.dtype)

    def _array(self, name: str) -> np.ndarray:
        """The tensor where it lies on the GPU."""
        shape = tuple(self.get_tensor_shape(name))
        dtype = self._engine.get_tensor_dtype(name).name
        numpy = DTYPES[NAMES.get(dtype, dtype)]
        nbytes = int(np.prod(shape)) * numpy.itemsize
        return self._engine.machine.bytes_at(self._addresses[name], nbytes).view(numpy).reshape(shape)

    def _output_rows(self, declared: Dims) -> int:
        if not len(declared) or declared[0] >= 0:
            return declared[0]
        return next(iter(self._shapes.values()))[0]

    def _open_size(self) -> int:
        """Open sizes of outputs are those of the inputs."""
        for tensor in self._engine.plan["inputs"]:
            for size, declared in zip(self._shapes[tensor["name"]][1:], tensor["shape"][1:], strict=True):
                if declared < 0:
                    return size
        raise AssertionError("no input has an open size")

    def _change(self) -> None:
        assert not self._is_recorded, "a context that a graph was recorded from must not change"


def fake_tensorrt(machine: Machine) -> ModuleType:
    """The module `tensorrt` of that machine."""
    module: Any = ModuleType("tensorrt")
    module.__version__ = VERSION
    for kind in (ILogger, DataType, TensorIOMode, TensorLocation, TensorFormat, ExecutionContextAllocationStrategy):
        setattr(module, kind.__name__, kind)
    for kind in (Dims, ICudaEngine, IExecutionContext):
        setattr(module, kind.__name__, kind)

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            assert machine.stack(), "no context is current"
            try:
                plan = json.loads(bytes(serialized_engine))
            except ValueError:
                return self._refuse("Serialization (Serialization assertion magicTagRead == kMAGIC_TAG failed.)")
            if plan["version"] != VERSION:
                return self._refuse(
                    "Serialization (Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.)"
                )
            if plan["capability"] != CAPABILITY:
                expected, got = plan["capability"], CAPABILITY
                return self._refuse(
                    f"API Usage Error (The engine plan file is generated on an incompatible device, "
                    f"expecting compute {expected} got compute {got}, please rebuild.)"
                )
            if plan.get("weights", 0) > machine.capacity:
                return self._refuse("OutOfMemory (Requested size was 99 bytes.)")
            return ICudaEngine(plan, machine, self._logger)

        def _refuse(self, reason: str) -> None:
            self._logger.log(ILogger.Severity.ERROR, f"IRuntime::deserializeCudaEngine: Error Code 1: {reason}")

    def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool:
        return True

    module.Runtime = Runtime
    module.init_libnvinfer_plugins = init_libnvinfer_plugins
    return module
