"""JSON bodies ⇄ rows, straight from and to bytes: the Open Inference Protocol v2, and the plain form.

A body is decoded into types made for the model, so that msgspec finds what is wrong and says where; what types can't
say (the lengths of lists, the ranges of numbers) is checked here, with the same kind of path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

import msgspec
import numpy as np

from nomadserve_runtime.errors import BadRequest, NotFound, Unsupported
from nomadserve_runtime.tensors import TensorSpec

# The longest way to write one number, its comma and its share of the indentation, in a JSON body that a machine wrote.
ELEMENT_NBYTES_MAX = 64
# What a body holds beside its numbers: names, id, parameters.
ENVELOPE_NBYTES_MAX = 64 * 1024

PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]


@dataclass(frozen=True, slots=True)
class Query:
    """One decoded request.

    Attributes:
        inputs: one array per input of the model, in its order; shape (rows, *row_shape).
        rows: at least 1.
        outputs: places, in the order of the model, of the outputs that the reply shall have.
        id: as the client gave it, or empty.
        timeout_s: the deadline that the client gave; infinite for none.
    """

    inputs: tuple[np.ndarray, ...]
    rows: int
    outputs: tuple[int, ...]
    id: str
    timeout_s: float


class PlainReply(msgspec.Struct, frozen=True):
    """The reply of `POST /v1/inference`."""

    id: str
    model: str
    version: str
    time: datetime
    outputs: dict[str, Any]


class OutputTensor(msgspec.Struct, frozen=True):
    """One output of a protocol reply; `data` is flat, row-major."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any


class InferReply(msgspec.Struct, frozen=True):
    """The reply of `POST /v2/models/{model}/infer`."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


class InferInput(msgspec.Struct, frozen=True):
    """One input of a protocol request, its numbers not yet read."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: dict[str, Any] = {}


class InferOutput(msgspec.Struct, frozen=True):
    """One output that a protocol request wishes for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct, frozen=True):
    """The body of `POST /v2/models/{model}/infer`."""

    inputs: list[InferInput]
    id: str = ""
    outputs: list[InferOutput] = []
    parameters: dict[str, Any] = {}


class _ModelOnly(msgspec.Struct, frozen=True):
    model: str = ""


_model_only = msgspec.json.Decoder(_ModelOnly)
_infer_request = msgspec.json.Decoder(InferRequest)
_encoder = msgspec.json.Encoder()


class ModelWire:
    """Decodes the requests and encodes the replies of one model.

    Attributes:
        body_nbytes_max: no valid body for this model is longer.
    """

    def __init__(
        self, name: str, *, version: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], rows_max: int
    ) -> None:
        self.name = name
        self.version = version
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.rows_max = rows_max
        elements = rows_max * sum(spec.row_size for spec in self.inputs)
        self.body_nbytes_max = ENVELOPE_NBYTES_MAX + elements * ELEMENT_NBYTES_MAX
        self._all_outputs = tuple(range(len(self.outputs)))
        self._plain = msgspec.json.Decoder(_plain_request(self.inputs))
        self._nested = [msgspec.json.Decoder(_nested(spec, 1 + len(spec.row_shape))) for spec in self.inputs]
        self._flat = [msgspec.json.Decoder(_nested(spec, 1)) for spec in self.inputs]

    # -- the plain form -------------------------------------------------------------------------------------------

    def decode_plain(self, body: bytes) -> Query:
        """Read `{"inputs": {"image": [[…]]}}`; `id` and `timeout_ms` may be given.

        Raises:
            BadRequest: naming the JSON path of what is wrong.
            NotFound: it is meant for another model.
        """
        request = _decode(self._plain, body)
        if request.model and request.model != self.name:
            raise NotFound(f"no model `{request.model}` is served here, but `{self.name}`")
        arrays = tuple(
            self._rows(spec, values, f"$.inputs.{spec.name}")
            for spec, values in zip(self.inputs, msgspec.structs.astuple(request.inputs), strict=True)
        )
        return Query(
            arrays,
            self._row_count(arrays),
            self._all_outputs,
            request.id,
            float("inf") if request.timeout_ms is msgspec.UNSET else request.timeout_ms / 1000,
        )

    def encode_plain(self, outputs: Sequence[np.ndarray], *, id: str, time: datetime | None = None) -> bytes:
        """The reply of the plain form; not-a-number and infinities become `null`, as JSON has no word for them."""
        rows = {spec.name: array.tolist() for spec, array in zip(self.outputs, outputs, strict=True)}
        return _encoder.encode(PlainReply(id, self.name, self.version, time or datetime.now(UTC), rows))

    # -- the Open Inference Protocol ------------------------------------------------------------------------------

    def decode_infer(self, body: bytes) -> Query:
        """Read a protocol request; `data` may be nested or flat, row-major.

        Raises:
            BadRequest: naming the JSON path of what is wrong.
            Unsupported: the tensors come in binary, or in shared memory.
        """
        request = _decode(_infer_request, body)
        by_name = {tensor.name: place for place, tensor in enumerate(request.inputs)}
        self._check_names(request, by_name)
        arrays = tuple(
            self._tensor(place, request.inputs[by_name[spec.name]], f"$.inputs[{by_name[spec.name]}]")
            for place, spec in enumerate(self.inputs)
        )
        return Query(arrays, self._row_count(arrays), self._wanted(request.outputs), request.id, float("inf"))

    def encode_infer(self, outputs: Sequence[np.ndarray], *, id: str, wanted: Sequence[int]) -> bytes:
        """The protocol reply with the `wanted` outputs, in that order."""
        tensors = [
            OutputTensor(spec.name, spec.datatype, array.shape, array.ravel().tolist())
            for spec, array in ((self.outputs[place], outputs[place]) for place in wanted)
        ]
        return _encoder.encode(InferReply(self.name, self.version, id, tensors))

    def _check_names(self, request: InferRequest, by_name: Mapping[str, int]) -> None:
        known = {spec.name for spec in self.inputs}
        for place, tensor in enumerate(request.inputs):
            if tensor.name not in known:
                raise BadRequest(f"the model has no input `{tensor.name}` - at `$.inputs[{place}].name`")
        if len(by_name) < len(request.inputs):
            raise BadRequest("an input is given twice - at `$.inputs`")
        if missing := [spec.name for spec in self.inputs if spec.name not in by_name]:
            raise BadRequest(f"input `{missing[0]}` is missing - at `$.inputs`")

    def _tensor(self, place: int, tensor: InferInput, path: str) -> np.ndarray:
        spec = self.inputs[place]
        if tensor.datatype != spec.datatype:
            raise BadRequest(f"input `{spec.name}` is {spec.datatype}, not {tensor.datatype} - at `{path}.datatype`")
        if len(tensor.shape) != 1 + len(spec.row_shape) or tuple(tensor.shape[1:]) != spec.row_shape:
            raise BadRequest(
                f"input `{spec.name}` takes the shape {_shape(spec)}, not {tensor.shape} - at `{path}.shape`"
            )
        rows = tensor.shape[0]
        if not 0 < rows <= self.rows_max:
            self._refuse_row_count(rows, f"{path}.shape")
        if not tensor.data:
            _refuse_without_data(tensor, path)
        path = f"{path}.data"
        if spec.row_shape and not _is_nested(tensor.data):
            values = _decode(self._flat[place], tensor.data, path)
            if len(values) != rows * spec.row_size:
                raise BadRequest(
                    f"{len(values)} values, where `shape` {tensor.shape} takes {rows * spec.row_size} - at `{path}`"
                )
            return _array(spec, values, path).reshape(rows, *spec.row_shape)
        array = self._rows(spec, _decode(self._nested[place], tensor.data, path), path)
        if len(array) != rows:
            raise BadRequest(f"{len(array)} rows, where `shape` says {rows} - at `{path}`")
        return array

    def _wanted(self, outputs: Sequence[InferOutput]) -> tuple[int, ...]:
        if not outputs:
            return self._all_outputs
        places = {spec.name: place for place, spec in enumerate(self.outputs)}
        for place, output in enumerate(outputs):
            if output.name not in places:
                raise BadRequest(f"the model has no output `{output.name}` - at `$.outputs[{place}].name`")
        return tuple(places[name] for name in dict.fromkeys(output.name for output in outputs))

    # -- both -----------------------------------------------------------------------------------------------------

    def _rows(self, spec: TensorSpec, values: list[Any], path: str) -> np.ndarray:
        """Nested lists of the right depth and element type → an array of the right shape."""
        if not 0 < len(values) <= self.rows_max:
            self._refuse_row_count(len(values), path)
        try:
            array = _array(spec, values, path)
        except ValueError:  # lists of unequal lengths
            _refuse_lengths(values, (len(values), *spec.row_shape), path)
        if array.shape[1:] != spec.row_shape:
            _refuse_lengths(values, (len(values), *spec.row_shape), path)
        return array

    def _row_count(self, arrays: Sequence[np.ndarray]) -> int:
        counts = {len(array) for array in arrays}
        if len(counts) > 1:
            each = ", ".join(f"`{spec.name}` has {len(array)}" for spec, array in zip(self.inputs, arrays, strict=True))
            raise BadRequest(f"the inputs differ in their number of rows: {each} - at `$.inputs`")
        return counts.pop()

    def _refuse_row_count(self, rows: int, path: str) -> NoReturn:
        if rows < 1:
            raise BadRequest(f"{rows} rows: a request has at least 1 - at `{path}`")
        raise BadRequest(f"{rows} rows: this model takes at most {self.rows_max} in one request - at `{path}`")


def model_named_in(body: bytes) -> str:
    """The `model` key of a plain body, or an empty text; the rest is skipped, not checked."""
    model: str = _decode(_model_only, body).model
    return model


def _plain_request(inputs: Sequence[TensorSpec]) -> Any:
    """The type of a plain body: every input of the model by its name, and nothing else."""
    fields = [
        (f"input_{place}", _nested(spec, 1 + len(spec.row_shape)), msgspec.field(name=spec.name))
        for place, spec in enumerate(inputs)
    ]
    return msgspec.defstruct(
        "PlainRequest",
        [
            ("inputs", msgspec.defstruct("Inputs", fields, frozen=True, forbid_unknown_fields=True)),
            ("model", str, ""),
            ("id", str, ""),
            ("timeout_ms", PositiveFloat | msgspec.UnsetType, msgspec.UNSET),
        ],
        frozen=True,
        forbid_unknown_fields=True,
    )


def _nested(spec: TensorSpec, depth: int) -> Any:
    """`list[list[float]]` for depth 2 of a float tensor, and so on."""
    kind: Any = {"b": bool, "f": float}.get(spec.dtype.kind, int)
    for _ in range(depth):
        kind = list[kind]
    return kind


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes | msgspec.Raw, path: str = "$") -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        text = str(error)
        text = text.replace("`$", f"`{path}", 1) if "at `$" in text else f"{text} - at `{path}`"
        raise BadRequest(text[0].lower() + text[1:]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None


def _array(spec: TensorSpec, values: list[Any], path: str) -> np.ndarray:
    try:
        with np.errstate(over="raise"):
            return np.asarray(values, spec.dtype)
    except (OverflowError, FloatingPointError):
        raise BadRequest(f"a number is out of range for {spec.datatype} - at `{path}`") from None


def _is_nested(data: msgspec.Raw) -> bool:
    """Whether a JSON array starts with another array; blanks between brackets are few."""
    return bytes(memoryview(data)[1:64]).lstrip().startswith(b"[")


def _refuse_without_data(tensor: InferInput, path: str) -> NoReturn:
    for parameter, form in (("binary_data_size", "binary"), ("shared_memory_region", "shared memory")):
        if parameter in tensor.parameters:
            raise Unsupported(f"tensors in {form} are not read yet: send `data` in the JSON - at `{path}`")
    raise BadRequest(f"input `{tensor.name}` has no `data` - at `{path}`")


def _refuse_lengths(values: list[Any], shape: tuple[int, ...], path: str) -> NoReturn:
    """Say where a list has the wrong length; its elements are lists wherever `shape` goes on."""
    if len(values) != shape[0]:
        raise BadRequest(f"{len(values)} values, where {shape[0]} belong - at `{path}`")
    assert len(shape) > 1
    for place, value in enumerate(values):
        if not _fits(value, shape[1:]):
            _refuse_lengths(value, shape[1:], f"{path}[{place}]")
    raise AssertionError("every list has the right length")


def _fits(values: list[Any], shape: tuple[int, ...]) -> bool:
    return len(values) == shape[0] and (len(shape) == 1 or all(_fits(value, shape[1:]) for value in values))


def _shape(spec: TensorSpec) -> str:
    return "[" + ", ".join(["rows", *map(str, spec.row_shape)]) + "]"
