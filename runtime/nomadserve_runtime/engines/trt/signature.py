"""What goes into a plan and comes out of it, and which batches it takes: read from the engine, by tensor name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nomadserve_runtime.errors import WrongSetting
from nomadserve_runtime.tensors import VARIABLE, Profile, RowShape, RowShapes, TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt

# TensorRT's name → ours. What is missing (FP8, INT4, FP4) is a format for weights, which nobody sends.
DATATYPES = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "BF16": "BF16",
    "INT8": "INT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "UINT8": "UINT8",
    "BOOL": "BOOL",
}

BATCH_HINT = "export the model with the batch as the first dimension of every input and output"


@dataclass(frozen=True)
class RowRange:
    """Batches that one optimization profile covers: from `least` to `most` rows, fastest at `best`."""

    least: int
    best: int
    most: int


@dataclass(frozen=True)
class Signature:
    """The inputs of an engine and its profiles; outputs are known once a context has shapes.

    Attributes:
        inputs: in the order of the engine.
        outputs: names and datatypes, in the order of the engine.
        profiles: by their number in the engine; one for a fixed batch.
        row_profiles: the rows that each of them takes, where these differ; else none.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[tuple[str, str], ...]
    profiles: tuple[RowRange, ...]
    row_profiles: tuple[Profile, ...]


def signature_of(module: Any, engine: "trt.ICudaEngine", title: str) -> Signature:
    """Read it; `title` names the model in errors, `module` is the package that the engine comes from.

    Raises:
        WrongSetting: a tensor is of a kind that can't be served.
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == module.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    for name in names:
        _check_place(module, engine, name, f"{'input' if name in inputs else 'output'} `{name}` of {title}")
    profiles = range(engine.num_optimization_profiles)
    ranges = {name: [_shapes(engine, name, profile) for profile in profiles] for name in inputs}
    specs = tuple(_input_spec(engine, name, ranges[name], title) for name in inputs)
    return Signature(
        specs,
        tuple((name, _datatype(engine, name, f"output `{name}` of {title}")) for name in outputs),
        tuple(_rows([ranges[name][profile] for name in inputs], profile, title) for profile in profiles),
        ()
        if all(spec.is_fixed for spec in specs)
        else tuple(_row_profile([ranges[name][profile] for name in inputs]) for profile in profiles),
    )


def output_row_shapes(context: "trt.IExecutionContext", signature: Signature, *, rows: int, title: str) -> RowShapes:
    """Row shapes of the outputs of a context whose input shapes are set, for a batch of `rows`.

    Raises:
        WrongSetting: the shape of one depends on the values of the inputs, or has no batch.
    """
    return tuple(_output_row_shape(context, name, rows, title) for name, _ in signature.outputs)


def output_specs(signature: Signature, found: Sequence[RowShapes]) -> tuple[TensorSpec, ...]:
    """The outputs, of whose rows these shapes were seen: what differs among them may differ."""
    specs = []
    for (name, datatype), shapes in zip(signature.outputs, zip(*found, strict=True), strict=True):
        row_shape = tuple(sizes[0] if len(set(sizes)) == 1 else VARIABLE for sizes in zip(*shapes, strict=True))
        specs.append(TensorSpec(name, datatype, row_shape))
    return tuple(specs)


def _output_row_shape(context: "trt.IExecutionContext", name: str, rows: int, title: str) -> RowShape:
    shape = _sizes(context.get_tensor_shape(name))
    if any(size < 0 for size in shape):
        raise WrongSetting(
            f"output `{name}` of {title} has the shape {list(shape)}: its size depends on the values of the inputs, "
            "which is not served",
            hint="end the model before that step (such as NonZero or NMS), or pad its result to a fixed size",
        )
    if not shape or shape[0] != rows:
        raise WrongSetting(
            f"output `{name}` of {title} has the shape {list(shape)} for {rows} rows: its first dimension must be the "
            "batch",
            hint=BATCH_HINT,
        )
    return shape[1:]


def _check_place(module: Any, engine: "trt.ICudaEngine", name: str, subject: str) -> None:
    """Refuse what is not a plain array in the memory of the GPU."""
    on_gpu = engine.get_tensor_location(name) == module.TensorLocation.DEVICE
    if engine.is_shape_inference_io(name) or not on_gpu:
        raise WrongSetting(
            f"{subject} is a shape, not data: requests can't carry it",
            hint="export the model so that shapes follow from the inputs",
        )
    layout = engine.get_tensor_format(name)
    if layout != module.TensorFormat.LINEAR:
        raise WrongSetting(
            f"{subject} has the layout {layout.name}, which clients don't speak",
            hint="build the plan with `LINEAR` as the format of every input and output",
        )


def _datatype(engine: "trt.ICudaEngine", name: str, subject: str) -> str:
    found = engine.get_tensor_dtype(name).name
    if found not in DATATYPES:
        raise WrongSetting(
            f"{subject} is {found}, which is not served",
            hint=f"cast it inside the model to one of {', '.join(DATATYPES.values())}",
        )
    return DATATYPES[found]


# The smallest, the best and the largest shape of an input in one profile, each with the batch first.
Shapes = tuple[tuple[int, ...], ...]


def _shapes(engine: "trt.ICudaEngine", name: str, profile: int) -> Shapes:
    declared = _sizes(engine.get_tensor_shape(name))
    if all(size >= 0 for size in declared):
        return (declared, declared, declared)
    return tuple(map(_sizes, engine.get_tensor_profile_shape(name, profile)))


def _input_spec(engine: "trt.ICudaEngine", name: str, by_profile: Sequence[Shapes], title: str) -> TensorSpec:
    datatype = _datatype(engine, name, f"input `{name}` of {title}")
    rows = [shape[1:] for shapes in by_profile for shape in shapes]
    if not by_profile[0][0]:
        raise WrongSetting(f"input `{name}` of {title} is a single number, without a batch", hint=BATCH_HINT)
    return TensorSpec(
        name, datatype, tuple(sizes[0] if len(set(sizes)) == 1 else VARIABLE for sizes in zip(*rows, strict=True))
    )


def _row_profile(inputs: Sequence[Shapes]) -> Profile:
    """The rows that a profile takes."""
    least, usual, most = (tuple(shapes[place][1:] for shapes in inputs) for place in range(3))
    return Profile(least, usual, most)


def _rows(inputs: Sequence[Shapes], profile: int, title: str) -> RowRange:
    """The batches that a profile takes for every input."""
    least = max(smallest[0] for smallest, _, _ in inputs)
    most = min(largest[0] for _, _, largest in inputs)
    if least > most:
        raise WrongSetting(
            f"the inputs of {title} have no batch size in common in optimization profile {profile}",
            hint="give all inputs the same `min` and `max` of the first dimension",
        )
    return RowRange(least, max(least, min(best[0] for _, best, _ in inputs)), most)


def _sizes(dims: "trt.Dims") -> tuple[int, ...]:
    return tuple(dims[place] for place in range(len(dims)))
