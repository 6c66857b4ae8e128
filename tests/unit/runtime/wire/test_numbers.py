from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from nomadserve_runtime.errors import BadRequest
from nomadserve_runtime.tensors import BFLOAT16, TensorSpec
from nomadserve_runtime.wire import ModelWire, numbers

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


BF16_ROW = TensorSpec("x", "BF16", (3,))


def test_bfloat16_comes_in_json_as_numbers_and_goes_out_as_numbers() -> None:
    wire = ModelWire("m", version="v1", inputs=[BF16_ROW], outputs=[TensorSpec("y", "BF16", (3,))], rows_max=4)
    for body in (
        b'{"inputs": {"x": [[1.5, -2, 3.0e38]]}}',
        b'{"inputs": {"x": [[1.5, -2, 3.0e38], [0, 0, 0]]}}',
    ):
        query = wire.decode_plain(body)
        assert query.inputs[0].dtype == BFLOAT16
        assert query.inputs[0][0].tolist() == [1.5, -2.0, pytest.approx(3.0e38, rel=0.01)]
    plain = msgspec.json.decode(wire.encode_plain(query.inputs, id="1", time=datetime.now(UTC)))
    assert plain["outputs"]["y"][0][:2] == [1.5, -2.0]
    whole = msgspec.json.decode(wire.encode_infer(query.inputs, id="1", wanted=(0,)))
    assert whole["outputs"][0]["data"][:2] == [1.5, -2.0]


def test_a_number_that_bfloat16_can_not_hold_is_refused() -> None:
    wire = ModelWire("m", version="v1", inputs=[BF16_ROW], outputs=[BF16_ROW], rows_max=4)
    with pytest.raises(BadRequest, match=r"a number is out of range for BF16 - at `\$\.inputs\.x`"):
        wire.decode_plain(b'{"inputs": {"x": [[1e39, 0, 0]]}}')


def test_numbers_that_are_not_finite_are_null_in_bfloat16_too() -> None:
    wire = ModelWire("m", version="v1", inputs=[BF16_ROW], outputs=[BF16_ROW], rows_max=4)
    rows = np.array([[np.nan, np.inf, 1]], BFLOAT16)
    reply = msgspec.json.decode(wire.encode_plain([rows], id="1", time=datetime.now(UTC)))
    assert reply["outputs"]["x"] == [[None, None, 1.0]]
