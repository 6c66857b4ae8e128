"""JSON lists of numbers or strings → arrays, by types made for each tensor: msgspec finds what is wrong, says where.

What types can't say (the lengths of lists, the ranges of numbers) is checked here, with the same kind of path.
"""

import struct
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec
import numpy as np

from nomadserve_runtime.errors import BadRequest
from nomadserve_runtime.tensors import BFLOAT16, TEXT, VARIABLE, RowShape, TensorSpec, is_floating


def nested(spec: TensorSpec, depth: int) -> Any:
    """`list[list[float]]` for depth 2 of a float tensor, and so on."""
    kind: Any = float if is_floating(spec.dtype) else {"b": bool, "O": str}.get(spec.dtype.kind, int)
    for _ in range(depth):
        kind = list[kind]
    return kind


# A number that is too large for FP32 or FP16 raises instead of becoming infinite: on this thread, for good, because a
# context manager around each conversion costs as much as the conversion (2.3 µs).
np.seterr(over="raise")


def decode(decoder: msgspec.json.Decoder[Any], body: bytes | memoryview | msgspec.Raw, path: str = "$") -> Any:
    """What `decoder` reads in `body`, which stands at `path` of the whole.

    Raises:
        BadRequest: naming the JSON path of what is wrong.
    """
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


def rows_of(spec: TensorSpec, values: list[Any], path: str, *, rows_max: int) -> np.ndarray:
    """Nested lists of the right depth and element type → an array of the right shape.

    Raises:
        BadRequest: a list has the wrong length, or a number is out of range.
    """
    if not 0 < len(values) <= rows_max:
        refuse_row_count(len(values), path, rows_max=rows_max)
    row_shape = spec.row_shape if spec.is_fixed else row_shape_in(spec, values)
    try:
        array = array_of(spec, values, path)
    except ValueError:  # lists of unequal lengths
        _refuse_lengths(values, (len(values), *row_shape), path)
    if array.shape[1:] != row_shape and (array.size or 0 not in row_shape):
        _refuse_lengths(values, (len(values), *row_shape), path)
    return array.reshape(len(values), *row_shape)


def row_shape_in(spec: TensorSpec, values: Any) -> RowShape:
    """The shape of the rows in nested lists, of which there is at least one: where it may differ, that of the first."""
    shape = []
    for wanted in spec.row_shape:
        values = values[0] if len(values) else ()
        shape.append(len(values) if wanted == VARIABLE else wanted)
    return tuple(shape)


def row_reader(spec: TensorSpec) -> Callable[[list[Any]], np.ndarray | None] | None:
    """What reads the one row of a request, a flat list, in less than half of the time that numpy takes.

    It gives None for what is not flawless: `rows_of` finds the words. None for tensors whose rows are no flat lists.
    """
    letter = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q"}.get(spec.dtype.str[1:])
    if letter is None or len(spec.row_shape) != 1 or not spec.is_fixed:
        return None
    # `=`: the machine's order of bytes, in sizes and with checks of ranges that are the same everywhere.
    pack, shape, dtype = struct.Struct(f"={spec.row_size}{letter}").pack, (1, spec.row_size), spec.dtype

    def read(values: list[Any]) -> np.ndarray | None:
        try:
            return np.ndarray(shape, dtype, pack(*values))
        except (struct.error, OverflowError):
            return None

    return read


def array_of(spec: TensorSpec, values: Any, path: str) -> np.ndarray:
    """Numbers or strings, in lists or in an array → an array of the type of the tensor.

    Strings in lists of unequal lengths become an array of lists: the caller knows the shape that it wants.

    Raises:
        BadRequest: the type can't hold a number.
    """
    try:
        if spec.dtype == BFLOAT16:  # what becomes infinite in it is only noticed on the way from another array
            return np.asarray(values, np.float64).astype(BFLOAT16)
        return np.asarray(values, spec.dtype)
    except (OverflowError, FloatingPointError):
        raise BadRequest(f"a number is out of range for {spec.datatype} - at `{path}`") from None


def for_json(array: Any) -> Any:
    """What orjson asks for where it can't write an array itself: it knows no bfloat16, and no strings in arrays."""
    if isinstance(array, np.ndarray) and array.dtype == BFLOAT16:
        return array.astype(np.float32)
    if isinstance(array, np.ndarray) and array.dtype == TEXT:
        return array.tolist()
    raise TypeError


def refuse_row_count(rows: int, path: str, *, rows_max: int) -> NoReturn:
    """Say that a request can't have that many rows."""
    if rows < 1:
        raise BadRequest(f"{rows} rows: a request has at least 1 - at `{path}`")
    raise BadRequest(f"{rows} rows: this model takes at most {rows_max} in one request - at `{path}`")


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
