"""What goes into a model and comes out of it: names, types and row shapes."""

import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np

# numpy has no bfloat16 of its own. This one counts as "void" there (kind `V`), and has no buffer to look into.
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# Datatype of the Open Inference Protocol → numpy type. BYTES (strings) have no place here yet.
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
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: as the model calls it.
        datatype: a key of `DTYPES`.
        row_shape: the shape of one row, without the batch dimension; every dimension is fixed.
    """

    name: str
    datatype: str
    row_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        assert self.datatype in DTYPES
        assert all(size >= 0 for size in self.row_shape)

    @property
    def dtype(self) -> np.dtype:
        """The numpy type of one element."""
        return DTYPES[self.datatype]

    @property
    def row_size(self) -> int:
        """Elements in one row."""
        return math.prod(self.row_shape)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape as metadata tells it: -1 stands for the rows."""
        return (-1, *self.row_shape)

    def __str__(self) -> str:
        dimensions = ", ".join(["batch", *map(str, self.row_shape)])
        return f"{self.name} {self.datatype} [{dimensions}]"


def is_floating(dtype: np.dtype) -> bool:
    """Whether it is a type of floating numbers."""
    return dtype.kind == "f" or dtype == BFLOAT16
