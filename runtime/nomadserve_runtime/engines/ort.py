"""ONNX Runtime: any ONNX model whose first dimension is the batch and whose other dimensions are fixed.

CUDA is used where the installed onnxruntime has it (not tried on a GPU yet), else the CPU.
A model with a fixed batch size k runs batches of exactly k: rows that no request fills are zeros.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.errors import CannotStart, WrongSetting
from nomadserve_runtime.slots import Slot
from nomadserve_runtime.tensors import TensorSpec

log = logging.getLogger("nomadserve.ort")

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")

DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
}

FIXED_SHAPES_HINT = "export the model with the batch as its only dynamic dimension, and first in every tensor"


class OrtEngine:
    """One session. It reads the slot's arrays in place; what it returns is copied into them.

    Binding the outputs to the slot saves that copy and costs more than it for all but large outputs: 14 µs a batch
    against 7 µs for 10 floats a row.
    """

    platform = "onnxruntime_onnx"
    parallel = 1

    def __init__(
        self,
        session: Any,
        *,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        batch_max: int,
        is_fixed_batch: bool,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.batch_max = batch_max
        self.is_fixed_batch = is_fixed_batch
        self._session = session

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Plain memory; page-locked memory for CUDA is not there yet."""
        return np.empty(shape, dtype)

    def run(self, slot: Slot, rows: int) -> None:
        """Run the session on the first `rows` rows, padded with zeros where the batch size is fixed."""
        assert 0 < rows <= self.batch_max
        run_rows = self.run_rows(rows)
        batch = {}
        for spec, array in zip(self.inputs, slot.inputs, strict=True):
            # Zeros, not what an earlier batch left: a row that made it fail must not fail this one too.
            array[rows:run_rows] = 0
            batch[spec.name] = array[:run_rows]
        for spec, array, result in zip(self.outputs, slot.outputs, self._session.run(None, batch), strict=True):
            if result.shape != (run_rows, *spec.row_shape):
                raise RuntimeError(f"output `{spec.name}` came out as {list(result.shape)} for {run_rows} rows")
            array[:rows] = result[:rows]

    def run_rows(self, rows: int) -> int:
        """All that the model has, where its batch size is fixed."""
        return self.batch_max if self.is_fixed_batch else rows

    def known_seconds(self, rows: int) -> None:
        """Only a run tells."""

    def close(self) -> None:
        """Drop the session."""
        del self._session


def load(model: ModelConfig) -> OrtEngine:
    """Open the ONNX file of the model, and run it once to learn the shapes of its outputs."""
    path, batch_max = Path(model.path), model.max_batch
    session = _open_session(path, threads=model.threads)
    inputs = tuple(_input_spec(path, node) for node in session.get_inputs())
    fixed_batch = _fixed_batch(path, session.get_inputs())
    if fixed_batch and fixed_batch != batch_max:
        log.info("%s has a fixed batch size of %d, which takes the place of max_batch", path.name, fixed_batch)
    batch_max = fixed_batch or batch_max
    outputs = _output_specs(path, session, inputs, rows=batch_max)
    return OrtEngine(session, inputs=inputs, outputs=outputs, batch_max=batch_max, is_fixed_batch=bool(fixed_batch))


def _open_session(path: Path, *, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise CannotStart(
            "the engine `onnxruntime` needs the package onnxruntime, which can't be imported here",
            hint="`pip install 'nomadserve[onnxruntime]'`",
        ) from error
    if not path.is_file():
        raise WrongSetting(f"there is no model file `{path}`", hint="check the path of the model")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads win microseconds for the model and take the cores that decode requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors; what matters of them arrives as an exception
    available = onnxruntime.get_available_providers()
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=[name for name in PROVIDERS if name in available]
        )
    except Exception as error:  # the classes that onnxruntime raises share no base of their own
        raise WrongSetting(
            f"onnxruntime can't load `{path}`: {_first_line(error)}", hint="check that it is a whole ONNX model"
        ) from error


def _input_spec(path: Path, node: Any) -> TensorSpec:
    datatype = _datatype(path, node, "input")
    if not node.shape or not all(isinstance(size, int) for size in node.shape[1:]):
        raise WrongSetting(
            f"input `{node.name}` of `{path}` has the shape {_shape(node.shape)}: only the first dimension, the batch, "
            "may be dynamic",
            hint=FIXED_SHAPES_HINT,
        )
    return TensorSpec(node.name, datatype, tuple(node.shape[1:]))


def _datatype(path: Path, node: Any, kind: str) -> str:
    if node.type not in DATATYPES:
        reason = "strings are not served yet" if node.type == "tensor(string)" else "that type is not served"
        raise WrongSetting(
            f"{kind} `{node.name}` of `{path}` is a {node.type}: {reason}",
            hint="move that step out of the model, so that numbers go in and come out",
        )
    return DATATYPES[node.type]


def _fixed_batch(path: Path, nodes: Sequence[Any]) -> int:
    """The batch size that the model insists on; 0 where it takes any."""
    sizes = {node.shape[0] for node in nodes if isinstance(node.shape[0], int)}
    if len(sizes) > 1:
        shapes = ", ".join(f"`{node.name}` {_shape(node.shape)}" for node in nodes)
        raise WrongSetting(f"the inputs of `{path}` differ in their batch size: {shapes}", hint=FIXED_SHAPES_HINT)
    return sizes.pop() if sizes else 0


def _output_specs(path: Path, session: Any, inputs: Sequence[TensorSpec], *, rows: int) -> tuple[TensorSpec, ...]:
    """Specs of the outputs, their shapes as a batch of zeros yields them: declared ones are often symbolic."""
    batch = {spec.name: np.zeros((rows, *spec.row_shape), spec.dtype) for spec in inputs}
    nodes = session.get_outputs()
    datatypes = [_datatype(path, node, "output") for node in nodes]
    try:
        arrays = session.run(None, batch)
    except Exception as error:
        raise WrongSetting(
            f"`{path}` fails on {rows} rows of zeros: {_first_line(error)}",
            hint=f"check that the model takes batches of {rows}, or set a smaller `max_batch`",
        ) from error
    for node, array in zip(nodes, arrays, strict=True):
        if array.ndim == 0 or array.shape[0] != rows:
            raise WrongSetting(
                f"output `{node.name}` of `{path}` has the shape {list(array.shape)} for {rows} rows: its first "
                "dimension must be the batch",
                hint=FIXED_SHAPES_HINT,
            )
    return tuple(
        TensorSpec(node.name, datatype, tuple(array.shape[1:]))
        for node, datatype, array in zip(nodes, datatypes, arrays, strict=True)
    )


def _shape(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
