"""`POST /v2/models/{model}/infer`: the Open Inference Protocol v2, its tensors in JSON or in binary."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import msgspec
import numpy as np
import orjson

from nomadserve_runtime.errors import BadRequest, Fault, Unsupported
from nomadserve_runtime.tensors import TEXT, Profile, RowShapes, TensorSpec
from nomadserve_runtime.wire import numbers, simd, texts
from nomadserve_runtime.wire.binary import Encoded, Tail, binary_size, bytes_of, json_nbytes_of, rows_in
from nomadserve_runtime.wire.plain import ORJSON_OPTIONS, row_count
from nomadserve_runtime.wire.query import Query
from nomadserve_runtime.wire.shapes import Shaping

PRIORITY_MAX = 2**31 - 1

# What JSON in front of binary tensors says is remembered: so many of them, and none that is longer.
PREFACES_MAX, PREFACE_NBYTES_MAX = 256, 4096

# (place of the input in the model, shape with the rows first, path of the tensor) → its rows
ReadData = Callable[[int, tuple[int, ...], str], np.ndarray]


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


_infer_request = msgspec.json.Decoder(InferRequest)


class InferForm:
    """Reads and writes the protocol bodies of one model."""

    def __init__(
        self,
        name: str,
        *,
        version: str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        rows_max: int,
        profiles: Sequence[Profile] = (),
    ) -> None:
        self._name = name
        self._version = version
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._input_names = frozenset(spec.name for spec in inputs)
        self._output_places = {spec.name: place for place, spec in enumerate(outputs)}
        self._all_outputs = tuple(range(len(outputs)))
        self._rows_max = rows_max
        self._shaping = Shaping(inputs, profiles) if profiles else None
        # Where the model has one, and its bytes are numbers whatever they are.
        is_usual = len(inputs) == 1 and not profiles and inputs[0].dtype.kind not in "bO"
        self._only = inputs[0] if is_usual else None
        self._prefaces: dict[tuple[bytes, int], Query] = {}
        self._is_simd = all(simd.can_read(spec) for spec in inputs)
        self._nested = [msgspec.json.Decoder(numbers.nested(spec, 1 + len(spec.row_shape))) for spec in inputs]
        self._flat = [msgspec.json.Decoder(numbers.nested(spec, 1)) for spec in inputs]

    # -- requests -------------------------------------------------------------------------------------------------

    def decode(self, body: bytes | memoryview) -> Query:
        """Read a body of JSON alone; `data` may be nested or flat, row-major.

        Raises:
            BadRequest: naming the JSON path of what is wrong.
            Unsupported: the tensors come in shared memory.
        """
        if self._is_simd and len(body) >= simd.NBYTES_MIN:
            query = simd.reading(body, self._decode_simd)
            if query is not None:
                return query
        return self._decode(body, Tail(memoryview(b"")))

    def decode_binary(self, body: bytes | memoryview, *, json_nbytes: int) -> Query:
        """Read a body of `json_nbytes` bytes of JSON and the tensors behind it; without JSON, the one row of raw bytes.

        Raises:
            BadRequest, Unsupported: as `decode`.
        """
        if json_nbytes == len(body):
            return self.decode(body)
        if json_nbytes == 0:
            return self._decode_raw(body)
        whole = memoryview(body)
        if self._only is not None and json_nbytes <= PREFACE_NBYTES_MAX:
            known = self._preface(bytes(whole[:json_nbytes]), len(body) - json_nbytes)
            if known is not None:
                rows = np.frombuffer(whole[json_nbytes:], self._only.dtype).reshape(known.rows, *self._only.row_shape)
                return msgspec.structs.replace(known, inputs=(rows,))
        return self._decode(whole[:json_nbytes], Tail(whole[json_nbytes:]))

    def begin_binary(self, beginning: bytes | memoryview, json_nbytes: str | None, *, body_nbytes: int) -> Query | None:
        """Read a body of which only the beginning has come, where all behind its JSON is the rows of the one input.

        They lie there as in memory, up to the end of the body, and are not in the query.
        json_nbytes: as the client says it. None: the whole body is needed, if only to say what is wrong with it.
        """
        try:
            nbytes = json_nbytes_of(json_nbytes or "", body_nbytes=body_nbytes)
        except BadRequest:
            return None
        if nbytes > min(len(beginning), PREFACE_NBYTES_MAX):
            return None
        return self._preface(bytes(beginning[:nbytes]), body_nbytes - nbytes)

    def _preface(self, head: bytes, tail_nbytes: int) -> Query | None:
        """The query of that JSON and so many bytes of numbers behind it, but for them; None in any other case."""
        key = (head, tail_nbytes)
        query = self._prefaces.get(key)
        if query is None and self._only is not None:
            query = self._read_preface(head, tail_nbytes, self._only)
            if query is not None:
                if len(self._prefaces) >= PREFACES_MAX:
                    del self._prefaces[next(iter(self._prefaces))]
                self._prefaces[key] = query
        return query

    def _read_preface(self, head: bytes, tail_nbytes: int, spec: TensorSpec) -> Query | None:
        try:
            request: InferRequest = numbers.decode(_infer_request, head)
            places = self._places(request)
            [tensor] = request.inputs
            # Without memory of their own: only their shape is looked at.
            query = self._query(request, places, lambda _, shape, __: np.broadcast_to(np.empty((), spec.dtype), shape))
            nbytes = binary_size(tensor.parameters, "$.inputs[0]")
        except Fault:
            return None
        is_usual = not tensor.data and nbytes == tail_nbytes == query.rows * spec.row_size * spec.dtype.itemsize
        return msgspec.structs.replace(query, inputs=()) if is_usual else None

    def _decode_raw(self, body: bytes | memoryview) -> Query:
        if len(self._inputs) != 1:
            raise BadRequest(f"a body without JSON is one input, and this model has {len(self._inputs)}")
        spec = self._inputs[0]
        if not spec.is_fixed:
            raise BadRequest(f"a body without JSON does not tell the shape of `{spec.name}`, which may differ")
        array = (
            _raw_text(spec, body) if spec.dtype == TEXT else rows_in(spec, memoryview(body), (1, *spec.row_shape), "$")
        )
        return Query((array,), 1, self._all_outputs, "", float("inf"), 0, frozenset(self._all_outputs))

    def _decode(self, body: bytes | memoryview, tail: Tail) -> Query:
        request: InferRequest = numbers.decode(_infer_request, body)
        places = self._places(request)
        binary = self._binary_data(request, tail)

        def read(place: int, shape: tuple[int, ...], path: str) -> np.ndarray:
            tensor = request.inputs[places[place]]
            if places[place] in binary:
                return rows_in(self._inputs[place], binary[places[place]], shape, path)
            return self._json_rows(place, tensor, shape, path)

        return self._query(request, places, read)

    def _binary_data(self, request: InferRequest, tail: Tail) -> dict[int, memoryview]:
        """Place in the request → bytes, of the inputs that come in binary."""
        binary = {}
        for place, tensor in enumerate(request.inputs):
            path = f"$.inputs[{place}]"
            nbytes = binary_size(tensor.parameters, path)
            if nbytes is not None:
                if tensor.data:
                    raise BadRequest(f"input `{tensor.name}` has both `data` and `binary_data_size` - at `{path}`")
                binary[place] = tail.take(nbytes, path)
        tail.require_end()
        return binary

    def _json_rows(self, place: int, tensor: InferInput, shape: tuple[int, ...], path: str) -> np.ndarray:
        spec = self._inputs[place]
        if not tensor.data:
            _refuse_without_data(tensor, path)
        path = f"{path}.data"
        if spec.row_shape and not _is_nested(tensor.data):
            values = numbers.decode(self._flat[place], tensor.data, path)
            if len(values) != math.prod(shape):
                raise BadRequest(
                    f"{len(values)} values, where `shape` {tensor.shape} takes {math.prod(shape)} - at `{path}`"
                )
            return numbers.array_of(spec, values, path).reshape(shape)
        values = numbers.decode(self._nested[place], tensor.data, path)
        array = numbers.rows_of(spec, values, path, rows_max=self._rows_max)
        if len(array) != shape[0]:
            raise BadRequest(f"{len(array)} rows, where `shape` says {shape[0]} - at `{path}`")
        if array.shape != shape:
            raise BadRequest(f"the shape is {list(array.shape)}, where `shape` says {tensor.shape} - at `{path}`")
        return array

    def _decode_simd(self, document: Any, brackets: int) -> Query | None:
        envelope = simd.without(document, "inputs")
        tensors = list(document["inputs"])
        heads = [simd.without(tensor, "data") for tensor in tensors]
        request = msgspec.convert({**envelope, "inputs": heads}, InferRequest)
        # Beside the data: the list of the inputs, their shapes, and the list of the outputs.
        lists = 1 + len(heads) + ("outputs" in envelope)

        def read(place: int, shape: tuple[int, ...], path: str) -> np.ndarray:
            nonlocal lists
            spec = self._inputs[place]
            data = tensors[places[place]]["data"]
            if not spec.row_shape or not simd.is_nested(data):
                lists += 1
                return simd.flat(spec, data, elements=math.prod(shape)).reshape(shape)
            array = simd.rows_of(spec, data, rows_max=shape[0])
            if array.shape[1:] != shape[1:]:
                raise ValueError("another shape than it says")
            lists += simd.lists_in(array.shape)
            return array

        places = self._places(request)
        query = self._query(request, places, read)
        return query if lists == brackets else None

    # -- what both ways check -------------------------------------------------------------------------------------

    def _places(self, request: InferRequest) -> list[int]:
        """Place in the model → place in the request."""
        by_name = {tensor.name: place for place, tensor in enumerate(request.inputs)}
        for place, tensor in enumerate(request.inputs):
            if tensor.name not in self._input_names:
                raise BadRequest(f"the model has no input `{tensor.name}` - at `$.inputs[{place}].name`")
        if len(by_name) < len(request.inputs):
            raise BadRequest("an input is given twice - at `$.inputs`")
        if missing := [spec.name for spec in self._inputs if spec.name not in by_name]:
            raise BadRequest(f"input `{missing[0]}` is missing - at `$.inputs`")
        return [by_name[spec.name] for spec in self._inputs]

    def _query(self, request: InferRequest, places: Sequence[int], read: ReadData) -> Query:
        arrays = []
        for place, wherein in enumerate(places):
            path = f"$.inputs[{wherein}]"
            shape = self._shape(self._inputs[place], request.inputs[wherein], path)
            arrays.append(read(place, shape, path))
        rows = row_count(self._inputs, arrays)
        shapes: RowShapes = ()
        if self._shaping is not None:
            shapes = self._shaping.of(arrays, [f"$.inputs[{wherein}]" for wherein in places])
        if not request.parameters and not request.outputs:
            return Query(tuple(arrays), rows, self._all_outputs, request.id, float("inf"), shapes=shapes)
        _refuse_unserved(request.parameters, "$.parameters")
        wanted = self._wanted(request.outputs)
        return Query(
            tuple(arrays),
            rows,
            wanted,
            request.id,
            _timeout_s(request.parameters),
            _integer(request.parameters, "priority", most=PRIORITY_MAX),
            self._wanted_binary(request, wanted),
            shapes,
        )

    def _shape(self, spec: TensorSpec, tensor: InferInput, path: str) -> tuple[int, ...]:
        """The shape, rows first; raises `BadRequest` where it, or the datatype, is not the model's."""
        if tensor.datatype != spec.datatype:
            raise BadRequest(f"input `{spec.name}` is {spec.datatype}, not {tensor.datatype} - at `{path}.datatype`")
        shape = tuple(tensor.shape)
        is_same = shape[1:] == spec.row_shape and self._shaping is None
        if not shape or not (is_same or spec.fits(shape[1:])):
            raise BadRequest(
                f"input `{spec.name}` takes the shape {_shape(spec)}, not {tensor.shape} - at `{path}.shape`"
            )
        if not 0 < shape[0] <= self._rows_max:
            numbers.refuse_row_count(shape[0], f"{path}.shape", rows_max=self._rows_max)
        return shape

    def _wanted(self, outputs: Sequence[InferOutput]) -> tuple[int, ...]:
        if not outputs:
            return self._all_outputs
        for place, output in enumerate(outputs):
            if output.name not in self._output_places:
                raise BadRequest(f"the model has no output `{output.name}` - at `$.outputs[{place}].name`")
        return tuple(self._output_places[name] for name in dict.fromkeys(output.name for output in outputs))

    def _wanted_binary(self, request: InferRequest, wanted: tuple[int, ...]) -> frozenset[int]:
        by_default = _flag(request.parameters, "binary_data_output", "$.parameters")
        binary = set(wanted) if by_default else set()
        for place, output in enumerate(request.outputs):
            _refuse_unserved(output.parameters, f"$.outputs[{place}].parameters")
            wish = _flag(output.parameters, "binary_data", f"$.outputs[{place}].parameters")
            if wish is not None:
                (binary.add if wish else binary.discard)(self._output_places[output.name])
        return frozenset(binary)

    # -- replies --------------------------------------------------------------------------------------------------

    def encode(self, outputs: Sequence[np.ndarray], *, id: str, wanted: Sequence[int]) -> bytes:
        """The reply with the `wanted` outputs in JSON, in that order."""
        return self._reply(id, [self._head(place, outputs) | {"data": outputs[place].ravel()} for place in wanted])

    def encode_binary(
        self, outputs: Sequence[np.ndarray], *, id: str, wanted: Sequence[int], binary: frozenset[int]
    ) -> Encoded:
        """The reply with those of the `wanted` outputs that are `binary` as bytes behind the JSON."""
        tensors, tails = [], []
        for place in wanted:
            form: dict[str, Any] = {"data": outputs[place].ravel()}
            if place in binary:
                tails.append(bytes_of(outputs[place]))
                form = {"parameters": {"binary_data_size": memoryview(tails[-1]).nbytes}}
            tensors.append(self._head(place, outputs) | form)
        head = self._reply(id, tensors)
        return Encoded(b"".join([head, *tails]), len(head))

    def _head(self, place: int, outputs: Sequence[np.ndarray]) -> dict[str, Any]:
        spec = self._outputs[place]
        return {"name": spec.name, "datatype": spec.datatype, "shape": outputs[place].shape}

    def _reply(self, id: str, tensors: list[dict[str, Any]]) -> bytes:
        return orjson.dumps(
            {"model_name": self._name, "model_version": self._version, "id": id, "outputs": tensors},
            numbers.for_json,
            ORJSON_OPTIONS,
        )


def _timeout_s(parameters: dict[str, Any]) -> float:
    """The parameter `timeout`, in microseconds; 0 and none stand for no deadline, as in the protocol's extension."""
    timeout_us = _integer(parameters, "timeout", most=2**63 - 1)
    return timeout_us / 1e6 if timeout_us else float("inf")


def _integer(parameters: dict[str, Any], name: str, *, most: int) -> int:
    value = parameters.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise BadRequest(f"`{name}` is no whole number from 0 to {most} - at `$.parameters.{name}`")
    return value


def _flag(parameters: dict[str, Any], name: str, path: str) -> bool | None:
    value = parameters.get(name)
    if not isinstance(value, bool | None):
        raise BadRequest(f"`{name}` is neither true nor false - at `{path}.{name}`")
    return value


def _refuse_unserved(parameters: dict[str, Any], path: str) -> None:
    """Parameters that change what a request means, and that no model here can honour."""
    for name in parameters:
        if name.startswith(("sequence_", "triton_")) or name in ("classification", "shared_memory_region"):
            raise Unsupported(f"`{name}` is not served here - at `{path}.{name}`")


def _raw_text(spec: TensorSpec, body: bytes | memoryview) -> np.ndarray:
    """The one string that is the whole body, as with Triton."""
    if spec.row_size != 1:
        raise BadRequest(f"a body without JSON is one string, and a row of `{spec.name}` has {spec.row_size}")
    return np.array(texts.text(memoryview(body), "$"), TEXT).reshape(1, *spec.row_shape)


def _is_nested(data: msgspec.Raw) -> bool:
    """Whether a JSON array starts with another array; blanks between brackets are few."""
    return bytes(memoryview(data)[1:64]).lstrip().startswith(b"[")


def _refuse_without_data(tensor: InferInput, path: str) -> NoReturn:
    if "shared_memory_region" in tensor.parameters:
        raise Unsupported(f"tensors in shared memory are not read: send `data`, or bytes - at `{path}`")
    raise BadRequest(f"input `{tensor.name}` has no `data` - at `{path}`")


def _shape(spec: TensorSpec) -> str:
    return "[" + ", ".join(["rows", *spec.dimensions]) + "]"
