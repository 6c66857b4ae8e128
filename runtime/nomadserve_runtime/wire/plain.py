"""`POST /v1/inference`: `{"inputs": {"image": [[…]]}}`, with metadata beside."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson

from nomadserve_runtime.errors import BadRequest, NotFound
from nomadserve_runtime.tensors import Profile, TensorSpec
from nomadserve_runtime.wire import numbers, simd
from nomadserve_runtime.wire.query import Query
from nomadserve_runtime.wire.shapes import Shaping

PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
# The protocol's range; 0 is "none given".
Priority = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]

ORJSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z


class _ModelOnly(msgspec.Struct, frozen=True):
    model: str = ""


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plain body without its numbers."""

    model: str = ""
    id: str = ""
    timeout_ms: PositiveFloat | msgspec.UnsetType = msgspec.UNSET
    priority: Priority = 0


_model_only = msgspec.json.Decoder(_ModelOnly)


class PlainForm:
    """Reads and writes the plain bodies of one model."""

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
        self._input_names = sorted(spec.name for spec in inputs)
        self._output_names = tuple(spec.name for spec in outputs)
        self._all_outputs = tuple(range(len(outputs)))
        self._rows_max = rows_max
        self._read_row = numbers.row_reader(self._inputs[0]) if len(inputs) == 1 else None
        name_text, version_text = orjson.dumps(name), orjson.dumps(version)
        self._after_id = b',"model":%b,"version":%b,"time":' % (name_text, version_text)
        self._output_keys = [orjson.dumps(name) + b":" for name in self._output_names]
        self._time: datetime | None = None
        self._time_text = b""
        self._decoder = msgspec.json.Decoder(_request_type(self._inputs))
        self._shaping = Shaping(inputs, profiles) if profiles else None
        self._paths = [f"$.inputs.{spec.name}" for spec in inputs]
        self._is_simd = all(simd.can_read(spec) for spec in self._inputs)

    def decode(self, body: bytes | memoryview) -> Query:
        """Read a body.

        Raises:
            BadRequest: naming the JSON path of what is wrong.
            NotFound: it is meant for another model.
        """
        if self._is_simd and len(body) >= simd.NBYTES_MIN:
            query = simd.reading(body, self._decode_simd)
            if query is not None:
                return query
        request = numbers.decode(self._decoder, body)
        values = msgspec.structs.astuple(request.inputs)
        if self._read_row is not None and len(values[0]) == 1:
            array = self._read_row(values[0][0])
            if array is not None:
                return self._query(request, (array,), 1)
        arrays = tuple(
            numbers.rows_of(spec, lists, path, rows_max=self._rows_max)
            for spec, lists, path in zip(self._inputs, values, self._paths, strict=True)
        )
        return self._query(request, arrays, row_count(self._inputs, arrays))

    def encode(self, outputs: Sequence[np.ndarray], *, id: str, time: datetime) -> bytes:
        """The reply; not-a-number and infinities become `null`, as JSON has no word for them.

        time: in UTC. Replies with the same one follow each other: its text is made once.
        """
        if time is not self._time:
            self._time, self._time_text = time, orjson.dumps(time, option=ORJSON_OPTIONS)
        parts = [b'{"id":', orjson.dumps(id), self._after_id, self._time_text, b',"outputs":{']
        for key, array in zip(self._output_keys, outputs, strict=True):
            parts += (key, orjson.dumps(array, numbers.for_json, ORJSON_OPTIONS), b",")
        parts[-1] = b"}}"
        return b"".join(parts)

    def _decode_simd(self, document: Any, brackets: int) -> Query | None:
        envelope = simd.without(document, "inputs")
        inputs = document["inputs"]
        if sorted(inputs.keys()) != self._input_names:
            return None
        arrays = tuple(simd.rows_of(spec, inputs[spec.name], rows_max=self._rows_max) for spec in self._inputs)
        if brackets != sum(simd.lists_in(array.shape) for array in arrays):
            return None
        return self._query(msgspec.convert(envelope, _Envelope), arrays, row_count(self._inputs, arrays))

    def _query(self, request: Any, arrays: tuple[np.ndarray, ...], rows: int) -> Query:
        """`request`: a decoded body, or an `_Envelope`."""
        if request.model and request.model != self._name:
            raise NotFound(f"no model `{request.model}` is served here, but `{self._name}`")
        return Query(
            arrays,
            rows,
            self._all_outputs,
            request.id,
            float("inf") if request.timeout_ms is msgspec.UNSET else request.timeout_ms / 1000,
            request.priority,
            shapes=() if self._shaping is None else self._shaping.of(arrays, self._paths),
        )


def model_named_in(body: bytes | memoryview) -> str:
    """The `model` key of a plain body, or an empty text; the rest is skipped, not checked."""
    model: str = numbers.decode(_model_only, body).model
    return model


def row_count(inputs: Sequence[TensorSpec], arrays: Sequence[np.ndarray]) -> int:
    """The number of rows that all inputs share; raises `BadRequest` where they differ."""
    rows = len(arrays[0])
    if any(len(array) != rows for array in arrays):
        each = ", ".join(f"`{spec.name}` has {len(array)}" for spec, array in zip(inputs, arrays, strict=True))
        raise BadRequest(f"the inputs differ in their number of rows: {each} - at `$.inputs`")
    return rows


def _request_type(inputs: Sequence[TensorSpec]) -> Any:
    """The type of a plain body: every input of the model by its name, and nothing else."""
    fields = [
        (f"input_{place}", numbers.nested(spec, 1 + len(spec.row_shape)), msgspec.field(name=spec.name))
        for place, spec in enumerate(inputs)
    ]
    return msgspec.defstruct(
        "PlainRequest",
        [
            ("inputs", msgspec.defstruct("Inputs", fields, frozen=True, forbid_unknown_fields=True)),
            ("model", str, ""),
            ("id", str, ""),
            ("timeout_ms", PositiveFloat | msgspec.UnsetType, msgspec.UNSET),
            ("priority", Priority, 0),
        ],
        frozen=True,
        forbid_unknown_fields=True,
    )
