"""Strings in binary (BYTES): each is its length in bytes, 4 bytes little-endian, then itself, in UTF-8.

The protocol lets them be any bytes. Models here take text: ONNX Runtime's Python has no other strings.
"""

import struct

import numpy as np

from nomadserve_runtime.errors import BadRequest
from nomadserve_runtime.tensors import TEXT

_LENGTH = struct.Struct("<I")


def read(data: memoryview, count: int, path: str) -> np.ndarray:
    """The `count` strings in `data`, a flat array; raises `BadRequest` where there are more, or fewer, or no text."""
    found = np.empty(count, TEXT)
    start = 0
    for place in range(count):
        end = start + _LENGTH.size
        if end <= len(data):
            end += _LENGTH.unpack_from(data, start)[0]
        if end > len(data):
            raise BadRequest(f"{len(data)} bytes end within string {place} of {count} - at `{path}`")
        found[place] = text(data[start + _LENGTH.size : end], path)
        start = end
    if start < len(data):
        raise BadRequest(f"{len(data) - start} bytes are left behind {count} strings - at `{path}`")
    return found


def text(data: memoryview, path: str) -> str:
    """One string; raises `BadRequest` where it is not UTF-8."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"a string is not UTF-8: {error.reason} - at `{path}`") from None


def write(array: np.ndarray) -> bytes:
    """The strings of an array, row-major."""
    encoded = [value.encode() for value in array.ravel().tolist()]
    return b"".join(part for value in encoded for part in (_LENGTH.pack(len(value)), value))
