"""The binary tensor data extension: tensors as bytes behind the JSON, little-endian, row-major, packed.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import math
import sys
from typing import Any

import msgspec
import numpy as np

from nomadserve_runtime.errors import BadRequest
from nomadserve_runtime.tensors import BFLOAT16, TEXT, TensorSpec
from nomadserve_runtime.wire import texts

HEADER = "inference-header-content-length"

# Every element is read and written as it lies in memory.
assert sys.byteorder == "little"


class Encoded(msgspec.Struct, frozen=True):
    """A reply with binary tensors.

    Attributes:
        body: the JSON, then the tensors.
        json_nbytes: for the header `inference-header-content-length`.
    """

    body: bytes
    json_nbytes: int


class Tail:
    """The bytes behind the JSON, handed out in the order in which the JSON names the tensors."""

    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._next = 0

    def take(self, nbytes: int, path: str) -> memoryview:
        """The next `nbytes` bytes; raises `BadRequest` where the body is shorter."""
        left = len(self._body) - self._next
        if nbytes > left:
            raise BadRequest(f"`binary_data_size` is {nbytes}, and {left} bytes are left in the body - at `{path}`")
        self._next += nbytes
        return self._body[self._next - nbytes : self._next]

    def require_end(self) -> None:
        """Raise `BadRequest` where some bytes belong to no tensor."""
        if left := len(self._body) - self._next:
            raise BadRequest(f"{left} bytes behind the last binary tensor belong to none")


def json_nbytes_of(header: str, *, body_nbytes: int) -> int:
    """Where the JSON ends, as the header `inference-header-content-length` says.

    Raises:
        BadRequest: it is no length, or none that this body can have.
    """
    # These two keep out signs, blanks and underscores, which `int` would take.
    if not (header.isascii() and header.isdigit()) or len(header) > 19:
        raise BadRequest(f"`{HEADER}` is `{header[:40]}`, which is no length")
    if int(header) > body_nbytes:
        raise BadRequest(f"`{HEADER}` is {int(header)}, and the body has {body_nbytes} bytes")
    return int(header)


def binary_size(parameters: dict[str, Any], path: str) -> int | None:
    """`binary_data_size` of an input, None where its data is in the JSON; raises `BadRequest` where it is no size."""
    size = parameters.get("binary_data_size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise BadRequest(f"`binary_data_size` is no number of bytes - at `{path}.parameters.binary_data_size`")
    return size


def rows_in(spec: TensorSpec, data: memoryview, shape: tuple[int, ...], path: str) -> np.ndarray:
    """`data` as rows of the tensor, in that shape: a view, but for strings.

    Raises:
        BadRequest: it has another size, or what no element of that type can be.
    """
    if spec.dtype == TEXT:
        return texts.read(data, math.prod(shape), path).reshape(shape)
    wanted = math.prod(shape) * spec.dtype.itemsize
    if len(data) != wanted:
        raise BadRequest(f"{len(data)} bytes, where {shape[0]} rows of `{spec.name}` take {wanted} - at `{path}`")
    if spec.dtype.kind == "b" and (np.frombuffer(data, np.uint8) > 1).any():
        raise BadRequest(f"a byte that is neither 0 nor 1 in a BOOL tensor - at `{path}`")
    return np.frombuffer(data, spec.dtype).reshape(shape)


def bytes_of(array: np.ndarray) -> bytes | memoryview:
    """The bytes of a tensor: numbers as they lie in memory."""
    if array.dtype == TEXT:
        return texts.write(array)
    whole = np.ascontiguousarray(array)
    return whole.view(np.uint8).data if whole.dtype == BFLOAT16 else whole.data
