"""Large JSON bodies by simdjson: their numbers become an array without one Python object each.

This reads only what is flawless. For everything else, and where the library is not installed, it answers None: then
`numbers` reads the body again, and finds the words for what is wrong. So there is one place that refuses.

A list of numbers comes out of simdjson flat, whatever its nesting. So the nesting is checked apart: the length of every
list that should be there, one by one; and that there are no others, by counting the opening brackets of the body.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from nomadserve_runtime.errors import BadRequest
from nomadserve_runtime.tensors import TensorSpec
from nomadserve_runtime.wire import numbers

try:
    import simdjson
except ImportError:  # no wheel for this Python
    simdjson = None  # type: ignore[assignment]

# Shorter bodies take less time with msgspec than the checks here; measured with 64 to 4,096 numbers in a row.
NBYTES_MIN = 4096

# numpy kind → what simdjson calls its 64-bit relative. Booleans have none.
KINDS = {"f": "d", "i": "i", "u": "u"}

# What simdjson raises where a body is not what was hoped for, and `msgspec.convert` too (a ValueError).
NOT_FLAWLESS = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, BadRequest)

Read = TypeVar("Read")

_parser: Any = None


def can_read(spec: TensorSpec) -> bool:
    """Whether simdjson has buffers for numbers of that type."""
    return simdjson is not None and spec.dtype.kind in KINDS


def reading(body: bytes | memoryview, read: Callable[[Any, int], Read | None]) -> Read | None:
    """What `read` makes of the parsed body and the number of its opening brackets; None where it is not flawless.

    The memory that the parser needs for the longest body (about 8 bytes for each of its own) is kept.
    """
    global _parser
    if body[:1] == b"\xef":  # a byte order mark: simdjson skips it, JSON forbids it
        return None
    if _parser is None:
        _parser = simdjson.Parser()
    try:
        return read(_parser.parse(body), _brackets_in(body))
    except NOT_FLAWLESS:
        # What was parsed may live on in the exception, and a parser serves one body at a time.
        _parser = None
        return None


def without(document: Any, key: str) -> dict[str, Any]:
    """An object as a dictionary, without one key; raises ValueError where a key is there twice."""
    keys = list(document.keys())
    if len(set(keys)) < len(keys):
        raise ValueError("a key is there twice")
    return {name: _plain(document[name]) for name in keys if name != key}


def rows_of(spec: TensorSpec, values: Any, *, rows_max: int) -> np.ndarray:
    """Nested lists as rows; raises one of `NOT_FLAWLESS` where a list has the wrong length or a wrong element."""
    rows = len(values)
    if not 0 < rows <= rows_max:
        raise ValueError("too many rows, or none")
    shape = (rows, *(spec.row_shape if spec.is_fixed else numbers.row_shape_in(spec, values)))
    _require_shape(values, shape)
    return flat(spec, values, elements=math.prod(shape)).reshape(shape)


def flat(spec: TensorSpec, values: Any, *, elements: int) -> np.ndarray:
    """The numbers of a list, lists in it flattened; raises one of `NOT_FLAWLESS` where they are not that many."""
    found = np.frombuffer(values.as_buffer(of_type=KINDS[spec.dtype.kind]), f"{spec.dtype.kind}8")
    if len(found) != elements:
        raise ValueError("not as many numbers as there should be")
    if found.dtype.kind != "f" and found.dtype != spec.dtype:
        limits = np.iinfo(spec.dtype)
        if found.min() < limits.min or found.max() > limits.max:
            raise ValueError("a number is out of range")
    return numbers.array_of(spec, found, "$")


def is_nested(values: Any) -> bool:
    """Whether a list starts with a list."""
    return type(values) is simdjson.Array and len(values) > 0 and type(values[0]) is simdjson.Array


def lists_in(shape: tuple[int, ...]) -> int:
    """How many lists an array of that shape is written with, nested: 1 + 2 + 2 × 3 for (2, 3, 4)."""
    return sum(math.prod(shape[:depth]) for depth in range(len(shape)))


def _brackets_in(body: bytes | memoryview) -> int:
    # Three times as fast as `body.count`.
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord("[")))


def _require_shape(values: Any, shape: tuple[int, ...]) -> None:
    if type(values) is not simdjson.Array or len(values) != shape[0]:
        raise ValueError("a list of the wrong length")
    lists: Iterable[Any] = values
    if len(shape) == 2:  # the innermost lists, of which there are most
        if any(len(numbers_in) != shape[1] for numbers_in in lists):
            raise ValueError("a list of the wrong length")
    elif len(shape) > 2:
        for inner in lists:
            _require_shape(inner, shape[1:])


def _plain(value: Any) -> Any:
    if type(value) is simdjson.Object:
        return value.as_dict()
    return value.as_list() if type(value) is simdjson.Array else value
