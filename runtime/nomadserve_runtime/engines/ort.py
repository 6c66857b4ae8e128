"""ONNX Runtime: any ONNX model whose first dimension is the batch; profiles bound the others that are not fixed.

CUDA is used where the installed onnxruntime has it (not tried on a GPU yet), else the CPU.
A model with a fixed batch size k runs batches of exactly k: rows that no request fills are zeros, or empty strings.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.engines.profiles import batch_max_of, profiles_of
from nomadserve_runtime.errors import CannotStart, WrongSetting
from nomadserve_runtime.slots import Slot
from nomadserve_runtime.tensors import TEXT, VARIABLE, Profile, RowShape, RowShapes, TensorSpec, blank, blanks

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
    "tensor(string)": "BYTES",
}

BATCH_HINT = "export the model with the batch as the first dimension of every tensor, dynamic or the same in all"


class OrtEngine:
    """One session. It reads the slot's arrays in place; what it returns is copied into them.

    Binding the outputs to the slot saves that copy and costs more than it for all but large outputs: 14 µs a batch
    against 7 µs for 10 floats a row.
    """

    platform = "onnxruntime_onnx"
    parallel = 1
    output_shapes_max = ()

    def __init__(
        self,
        session: Any,
        *,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        batch_max: int,
        is_fixed_batch: bool,
        profiles: tuple[Profile, ...] = (),
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.batch_max = batch_max
        self.is_fixed_batch = is_fixed_batch
        self.profiles = profiles
        self._are_outputs_fixed = all(spec.is_fixed for spec in outputs)
        self._session = session

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Plain memory; page-locked memory for CUDA is not there yet."""
        return blanks(shape, dtype) if dtype == TEXT else np.empty(shape, dtype)

    def run(self, slot: Slot, rows: int) -> None:
        """Run the session on the first `rows` rows, padded where the batch size is fixed."""
        assert 0 < rows <= self.batch_max
        run_rows = self.run_rows(rows)
        batch = {}
        for spec, array in zip(self.inputs, slot.inputs, strict=True):
            # Not with what an earlier batch left: a row that made it fail must not fail this one too.
            array[rows:run_rows] = blank(spec.dtype)
            batch[spec.name] = array[:run_rows]
        results = self._session.run(None, batch)
        for spec, result in zip(self.outputs, results, strict=True):
            if result.shape != (run_rows, *spec.row_shape) and not _fits(spec, result, run_rows):
                raise RuntimeError(f"output `{spec.name}` came out as {list(result.shape)} for {run_rows} rows")
        if not self._are_outputs_fixed:
            slot.outputs = tuple(results)
            return
        for array, result in zip(slot.outputs, results, strict=True):
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
    profiles = profiles_of(model.profiles, inputs, title=f"`{path}`")
    batch_max = fixed_batch or batch_max_of(model.profiles, batch_max)
    return OrtEngine(
        session,
        inputs=inputs,
        outputs=_output_specs(path, session, inputs, profiles, rows=batch_max),
        batch_max=batch_max,
        is_fixed_batch=bool(fixed_batch),
        profiles=profiles,
    )


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
    if not node.shape:
        raise WrongSetting(f"input `{node.name}` of `{path}` has no dimension for the batch", hint=BATCH_HINT)
    return _spec(node, datatype, [size if isinstance(size, int) else VARIABLE for size in node.shape[1:]])


def _spec(node: Any, datatype: str, row_shape: Sequence[int]) -> TensorSpec:
    """With the names that the model gives to open dimensions."""
    declared = [size if isinstance(size, str) else "" for size in node.shape[1:]]
    are_named = len(declared) == len(row_shape) and VARIABLE in row_shape
    names = [name if size == VARIABLE else "" for name, size in zip(declared, row_shape, strict=False)]
    return TensorSpec(node.name, datatype, tuple(row_shape), tuple(names) if are_named else ())


def _datatype(path: Path, node: Any, kind: str) -> str:
    if node.type not in DATATYPES:
        raise WrongSetting(
            f"{kind} `{node.name}` of `{path}` is a {node.type}: that type is not served",
            hint="move that step out of the model, so that numbers or strings go in and come out",
        )
    return DATATYPES[node.type]


def _fixed_batch(path: Path, nodes: Sequence[Any]) -> int:
    """The batch size that the model insists on; 0 where it takes any."""
    sizes = {node.shape[0] for node in nodes if isinstance(node.shape[0], int)}
    if len(sizes) > 1:
        shapes = ", ".join(f"`{node.name}` {_shape(node.shape)}" for node in nodes)
        raise WrongSetting(f"the inputs of `{path}` differ in their batch size: {shapes}", hint=BATCH_HINT)
    return sizes.pop() if sizes else 0


def _output_specs(
    path: Path, session: Any, inputs: Sequence[TensorSpec], profiles: Sequence[Profile], *, rows: int
) -> tuple[TensorSpec, ...]:
    """Specs of the outputs, their shapes as batches of blank rows yield them: declared ones are often symbolic.

    What differs between the smallest rows and the largest is left open; and so is what the model leaves open itself,
    where its rows may differ.
    """
    nodes = session.get_outputs()
    datatypes = [_datatype(path, node, "output") for node in nodes]
    fixed = tuple(spec.row_shape for spec in inputs)
    tried = [shapes for each in profiles for shapes in (each.usual, each.least, each.most)] or [fixed]
    found = [_output_shapes(path, session, inputs, shapes, rows=rows) for shapes in dict.fromkeys(tried)]
    return tuple(
        _spec(node, datatype, _common(node, [shapes[place] for shapes in found], is_open=bool(profiles)))
        for place, (node, datatype) in enumerate(zip(nodes, datatypes, strict=True))
    )


def _output_shapes(
    path: Path, session: Any, inputs: Sequence[TensorSpec], shapes: RowShapes, *, rows: int
) -> list[RowShape]:
    batch = {spec.name: blanks((rows, *shape), spec.dtype) for spec, shape in zip(inputs, shapes, strict=True)}
    try:
        arrays = session.run(None, batch)
    except Exception as error:
        raise WrongSetting(
            f"`{path}` fails on {rows} rows of {_blanks(inputs)}{_of(shapes, inputs)}: {_first_line(error)}",
            hint=f"it must take blank rows, and batches of {rows}; if those are too large, set a smaller `max_batch`",
        ) from error
    for node, array in zip(session.get_outputs(), arrays, strict=True):
        if array.ndim == 0 or array.shape[0] != rows:
            raise WrongSetting(
                f"output `{node.name}` of `{path}` has the shape {list(array.shape)} for {rows} rows: its first "
                "dimension must be the batch",
                hint=BATCH_HINT,
            )
    return [tuple(array.shape[1:]) for array in arrays]


def _common(node: Any, shapes: Sequence[RowShape], *, is_open: bool) -> RowShape:
    """What these shapes of one output have in common."""
    if len({len(shape) for shape in shapes}) > 1:
        raise WrongSetting(
            f"output `{node.name}` differs in its number of dimensions: {', '.join(map(_shape, shapes))}",
            hint="make profiles for which it does not, or change the model",
        )
    declared = list(node.shape[1:]) if len(node.shape) == 1 + len(shapes[0]) else [None] * len(shapes[0])
    return tuple(
        sizes[0] if len(set(sizes)) == 1 and (isinstance(said, int) or not is_open) else VARIABLE
        for said, *sizes in zip(declared, *shapes, strict=True)
    )


def _blanks(inputs: Sequence[TensorSpec]) -> str:
    are_texts = {spec.dtype == TEXT for spec in inputs}
    return " and ".join("empty strings" if is_text else "zeros" for is_text in sorted(are_texts))


def _of(shapes: RowShapes, inputs: Sequence[TensorSpec]) -> str:
    if all(spec.is_fixed for spec in inputs):
        return ""
    return " of the shapes " + ", ".join(
        f"`{spec.name}` {list(shape)}" for spec, shape in zip(inputs, shapes, strict=True)
    )


def _fits(spec: TensorSpec, result: np.ndarray, rows: int) -> bool:
    return result.ndim > 0 and len(result) == rows and spec.fits(result.shape[1:])


def _shape(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
