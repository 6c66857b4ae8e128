"""An engine without a model: a JSON file describes its tensors, how long it takes and when it fails.

    {"inputs":  [{"name": "x", "datatype": "FP32", "shape": [4]}],
     "outputs": [{"name": "y", "datatype": "FP32", "shape": [2]}],
     "delay_ms": 20, "delay_ms_per_row": 0.5, "fail_on": 666, "calibrated_ms": 5}

Shapes are those of one row; -1 in those of inputs may differ from request to request, within the profiles of the
configuration; in those of outputs it stands for the first such size of the inputs. Element i of an output row is the
sum over all elements of all inputs of that row, plus i.
A batch fails where the first element of one of its rows, in the first input, equals `fail_on`. `calibrated_ms` is what
calibration finds for every batch, where that shall differ from what batches take later.
"""

import math
import time
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.engines.profiles import batch_max_of, profiles_of
from nomadserve_runtime.errors import WrongSetting
from nomadserve_runtime.slots import Slot
from nomadserve_runtime.tensors import DTYPES, TEXT, VARIABLE, Profile, RowShape, TensorSpec

NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output, as the file writes it."""

    name: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=-1)], ...]
    datatype: str = "FP32"

    def __post_init__(self) -> None:
        if DTYPES.get(self.datatype, TEXT) == TEXT:
            raise ValueError(f"unknown datatype `{self.datatype}`")
        if 0 in self.shape:
            raise ValueError("a size of 0")

    def spec(self) -> TensorSpec:
        """The same as a `TensorSpec`."""
        return TensorSpec(self.name, self.datatype, self.shape)


Tensors = Annotated[tuple[Tensor, ...], msgspec.Meta(min_length=1)]


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    inputs: Tensors
    outputs: Tensors
    delay_ms: NotNegative = 0.0
    delay_ms_per_row: NotNegative = 0.0
    fail_on: float | None = None
    calibrated_ms: NotNegative | None = None


class FakeEngine:
    """Computes what its `Behaviour` says, in the time it says. See the module for the arithmetic."""

    platform = "nomadserve_fake"
    parallel = 1
    output_shapes_max = ()

    def __init__(self, behaviour: Behaviour, *, batch_max: int, profiles: tuple[Profile, ...] = ()) -> None:
        self.inputs = tuple(tensor.spec() for tensor in behaviour.inputs)
        self.outputs = tuple(tensor.spec() for tensor in behaviour.outputs)
        self.batch_max = batch_max
        self.profiles = profiles
        self._behaviour = behaviour

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Plain memory."""
        return np.empty(shape, dtype)

    def run(self, slot: Slot, rows: int) -> None:
        """Sleep as long as the file says, then compute or fail."""
        assert 0 < rows <= self.batch_max
        time.sleep((self._behaviour.delay_ms + rows * self._behaviour.delay_ms_per_row) / 1000)
        first = slot.inputs[0][:rows].reshape(rows, -1)[:, 0]
        if self._behaviour.fail_on is not None and np.any(first == self._behaviour.fail_on):
            raise RuntimeError(f"a row starts with {self._behaviour.fail_on:g}")
        totals = np.zeros(rows)
        for array in slot.inputs:
            totals += array[:rows].reshape(rows, -1).sum(axis=1, dtype=np.float64)
        outputs = []
        for spec, array in zip(self.outputs, slot.outputs, strict=True):
            shape = spec.row_shape if spec.is_fixed else self._shape_of(spec, slot)
            values = (totals[:, None] + np.arange(math.prod(shape))).reshape(rows, *shape).astype(spec.dtype)
            if spec.is_fixed:
                array[:rows] = values
            outputs.append(array if spec.is_fixed else values)
        slot.outputs = tuple(outputs)

    def _shape_of(self, spec: TensorSpec, slot: Slot) -> RowShape:
        shapes = zip(self.inputs, slot.inputs, strict=True)
        sizes = [
            size
            for tensor, array in shapes
            for wanted, size in zip(tensor.row_shape, array.shape[1:], strict=True)
            if wanted == VARIABLE
        ]
        return tuple(sizes[0] if size == VARIABLE else size for size in spec.row_shape)

    def run_rows(self, rows: int) -> int:
        """No batch is padded."""
        return rows

    def known_seconds(self, rows: int) -> float:
        """As the file says."""
        if self._behaviour.calibrated_ms is not None:
            return self._behaviour.calibrated_ms / 1000
        return (self._behaviour.delay_ms + rows * self._behaviour.delay_ms_per_row) / 1000

    def close(self) -> None:
        """Nothing to give back."""


def load(model: ModelConfig) -> FakeEngine:
    """The engine that the file of the model describes; `threads` means nothing to it."""
    path = Path(model.path)
    try:
        behaviour = msgspec.json.decode(path.read_bytes(), type=Behaviour)
    except OSError as error:
        raise WrongSetting(f"can't read `{path}`: {error.strerror}", hint="check the path of the model") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WrongSetting(
            f"`{path}` does not describe a fake model: {error}",
            hint='a small one: {"inputs": [{"name": "x", "shape": [4]}], "outputs": [{"name": "y", "shape": [2]}]}',
        ) from error
    inputs = [tensor.spec() for tensor in behaviour.inputs]
    profiles = profiles_of(model.profiles, inputs, title=f"`{path}`")
    return FakeEngine(behaviour, batch_max=batch_max_of(model.profiles, model.max_batch), profiles=profiles)
