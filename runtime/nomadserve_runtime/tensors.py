"""What goes into a model and comes out of it: names, types and row shapes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

# numpy has no bfloat16 of its own. This one counts as "void" there (kind `V`), and has no buffer to look into.
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# Strings: every element is a `str`, which the array only points to.
TEXT = np.dtype(object)

# Datatype of the Open Inference Protocol → numpy type.
DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": BFLOAT16,
    "BYTES": TEXT,
}


RowShape = tuple[int, ...]
# One row shape for each input of a model, in its order; empty where all of them are fixed, so never differ.
RowShapes = tuple[RowShape, ...]

VARIABLE = -1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: as the model calls it.
        datatype: a key of `DTYPES`.
        row_shape: the shape of one row, without the batch dimension; -1 where it may differ from request to request.
        symbols: what the model calls each dimension of a row; empty texts, or none at all, where it has no name.
            Dimensions of the same name have the same size in one request.
    """

    name: str
    datatype: str
    row_shape: RowShape
    symbols: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.datatype in DTYPES
        assert all(size >= VARIABLE for size in self.row_shape)
        assert len(self.symbols) in (0, len(self.row_shape))

    @property
    def dtype(self) -> np.dtype:
        """The numpy type of one element."""
        return DTYPES[self.datatype]

    @property
    def is_fixed(self) -> bool:
        """Whether all rows have the same shape."""
        return VARIABLE not in self.row_shape

    @property
    def row_size(self) -> int:
        """Elements in one row of a fixed shape."""
        assert self.is_fixed
        return math.prod(self.row_shape)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape as metadata tells it: -1 stands for the rows, and for what may differ."""
        return (VARIABLE, *self.row_shape)

    def fits(self, row_shape: Sequence[int]) -> bool:
        """Whether a row may have that shape, as far as this tensor alone says."""
        return len(row_shape) == len(self.row_shape) and all(
            size >= 0 and wanted in (size, VARIABLE) for size, wanted in zip(row_shape, self.row_shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} [{', '.join(['batch', *self.dimensions])}]"

    @property
    def dimensions(self) -> list[str]:
        """Each dimension of a row as people read it: its size, or its name."""
        symbols = self.symbols or ("",) * len(self.row_shape)
        return [
            symbol or "any" if size == VARIABLE else str(size)
            for size, symbol in zip(self.row_shape, symbols, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Profile:
    """Row shapes that an engine takes: every size of a dimension from `least` to `most`, of all inputs at once.

    Attributes:
        usual: what most requests are expected to have.
    """

    least: RowShapes
    usual: RowShapes
    most: RowShapes

    def __post_init__(self) -> None:
        assert self.takes(self.usual)

    def takes(self, shapes: RowShapes) -> bool:
        """Whether rows of these shapes are within the bounds."""
        return all(
            low <= size <= high
            for least, shape, most in zip(self.least, shapes, self.most, strict=True)
            for low, size, high in zip(least, shape, most, strict=True)
        )


def largest(inputs: Sequence[TensorSpec], profiles: Sequence[Profile]) -> RowShapes:
    """The largest size of every dimension of a row, of every input; without profiles, all inputs are fixed."""
    if not profiles:
        return tuple(spec.row_shape for spec in inputs)
    of_inputs = zip(*(profile.most for profile in profiles), strict=True)
    return tuple(tuple(map(max, zip(*shapes, strict=True))) for shapes in of_inputs)


def blanks(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An array of what every model takes, if any content at all: zeros, or empty strings."""
    return np.full(shape, blank(dtype), dtype)


def blank(dtype: np.dtype) -> Any:
    """One element of it."""
    return "" if dtype == TEXT else 0


def rows_not_finite(array: np.ndarray) -> int:
    """How many rows have an element that is not a finite number."""
    if not is_floating(array.dtype):
        return 0
    finite = np.isfinite(array)
    return 0 if finite.all() else len(array) - int(finite.reshape(len(array), -1).all(axis=1).sum())


def is_floating(dtype: np.dtype) -> bool:
    """Whether it is a type of floating numbers."""
    return dtype.kind == "f" or dtype == BFLOAT16
