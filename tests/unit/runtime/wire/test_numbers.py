from typing import Any

import numpy as np
import pytest

from nomadserve_runtime.tensors import TensorSpec
from nomadserve_runtime.wire import numbers

TYPES = ("INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")


@pytest.mark.parametrize("datatype", TYPES)
def test_one_flat_row_is_read_as_numpy_reads_it(datatype: str) -> None:
    spec = TensorSpec("x", datatype, (4,))
    read = numbers.row_reader(spec)
    assert read is not None
    values: list[Any] = [0, -1, 100, 7] if spec.dtype.kind == "i" else [0.1, -1.0, 1e-7, 65504.0]
    array = read(values)
    assert array is not None
    assert (array.dtype, array.shape) == (spec.dtype, (1, 4))
    assert array.tolist() == np.asarray([values], spec.dtype).tolist()


@pytest.mark.parametrize("datatype", TYPES[:-1])
def test_what_the_type_can_not_hold_is_left_to_the_words_of_others(datatype: str) -> None:
    spec = TensorSpec("x", datatype, (1,))
    read = numbers.row_reader(spec)
    assert read is not None
    assert read([2**63] if spec.dtype.kind == "i" else [1e300]) is None


def test_a_row_of_another_length_is_left_to_the_words_of_others() -> None:
    read = numbers.row_reader(TensorSpec("x", "FP32", (4,)))
    assert read is not None
    assert [read([0.0] * length) for length in (0, 3, 5)] == [None] * 3


@pytest.mark.parametrize(
    "spec", [TensorSpec("x", "FP32", (2, 2)), TensorSpec("x", "FP32", ()), TensorSpec("x", "BOOL", (2,))]
)
def test_rows_of_another_form_have_no_such_reader(spec: TensorSpec) -> None:
    assert numbers.row_reader(spec) is None
