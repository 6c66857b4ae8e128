"""Tensors as bytes behind the JSON, both ways."""

import json
from typing import Any

import numpy as np
import pytest

from nomadserve_runtime.errors import BadRequest
from nomadserve_runtime.tensors import DTYPES, TensorSpec
from nomadserve_runtime.wire import ModelWire, Query
from nomadserve_runtime.wire.binary import json_nbytes_of

IMAGE = TensorSpec("image", "FP32", (2, 3))
LABEL = TensorSpec("label", "INT64", ())
MASK = TensorSpec("mask", "BOOL", (2,))
SCORES = TensorSpec("scores", "FP32", (2,))

ONE_IMAGE = np.arange(6, dtype=np.float32).reshape(1, 2, 3)


def wire(*inputs: TensorSpec) -> ModelWire:
    return ModelWire("m", version="v1", inputs=inputs or (IMAGE,), outputs=(SCORES, LABEL), rows_max=4)


def binary(array: np.ndarray, spec: TensorSpec = IMAGE, **parameters: Any) -> dict[str, Any]:
    known = {"binary_data_size": array.nbytes}
    return {"name": spec.name, "shape": array.shape, "datatype": spec.datatype, "parameters": known | parameters}


def decode(content: Any, tail: bytes, *inputs: TensorSpec) -> Query:
    head = json.dumps(content).encode()
    return wire(*inputs).decode_binary(head + tail, json_nbytes=len(head))


def test_a_binary_input_is_a_view_on_the_body() -> None:
    query = decode({"inputs": [binary(ONE_IMAGE)]}, ONE_IMAGE.tobytes())
    assert query.inputs[0].tolist() == ONE_IMAGE.tolist()
    # The copy into the rows of the batch is the only one.
    assert not query.inputs[0].flags.owndata


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BYTES"])
def test_every_datatype_of_numbers_goes_both_ways_bit_by_bit(datatype: str) -> None:
    spec = TensorSpec("x", datatype, (3,))
    rng = np.random.default_rng(7)
    array = rng.integers(0, 2, (2, 3)).astype(spec.dtype) if datatype == "BOOL" else rng.bytes(6 * spec.dtype.itemsize)
    raw = array.tobytes() if isinstance(array, np.ndarray) else array
    both = ModelWire("m", version="v1", inputs=(spec,), outputs=(spec,), rows_max=4)
    head = json.dumps({"inputs": [binary(np.frombuffer(raw, spec.dtype).reshape(2, 3), spec)]}).encode()
    query = both.decode_binary(head + raw, json_nbytes=len(head))
    reply = both.encode_binary(query.inputs, id="1", wanted=(0,), binary=frozenset({0}))
    assert reply.body[reply.json_nbytes :] == raw


def test_tensors_lie_in_the_order_of_the_json_not_of_the_model() -> None:
    label, mask = np.array([7], np.int64), np.array([[True, False]])
    content = {"inputs": [binary(mask, MASK), binary(label, LABEL), binary(ONE_IMAGE)]}
    query = decode(content, mask.tobytes() + label.tobytes() + ONE_IMAGE.tobytes(), IMAGE, LABEL, MASK)
    assert [array.tolist() for array in query.inputs] == [ONE_IMAGE.tolist(), [7], [[True, False]]]


def test_json_and_binary_inputs_may_be_mixed() -> None:
    content = {"inputs": [{"name": "label", "shape": [1], "datatype": "INT64", "data": [7]}, binary(ONE_IMAGE)]}
    query = decode(content, ONE_IMAGE.tobytes(), IMAGE, LABEL)
    assert [array.tolist() for array in query.inputs] == [ONE_IMAGE.tolist(), [7]]


def test_not_a_number_is_a_number_here() -> None:
    query = decode({"inputs": [binary(ONE_IMAGE)]}, np.full(6, np.nan, np.float32).tobytes())
    assert np.isnan(query.inputs[0]).all()


def test_raw_bytes_are_one_row_of_the_only_input_and_all_outputs_come_in_binary() -> None:
    query = wire().decode_binary(ONE_IMAGE.tobytes(), json_nbytes=0)
    assert (query.rows, query.outputs, query.binary) == (1, (0, 1), {0, 1})
    assert query.inputs[0].tolist() == ONE_IMAGE.tolist()


def test_a_header_that_covers_the_whole_body_changes_nothing() -> None:
    """What the C++ client always sends, also where all tensors are in the JSON."""
    content = {"inputs": [{"name": "image", "shape": [1, 2, 3], "datatype": "FP32", "data": [0, 1, 2, 3, 4, 5]}]}
    query = decode(content, b"")
    assert (query.rows, query.binary) == (1, frozenset())


@pytest.mark.parametrize(
    ("wish", "places"),
    [
        ({}, set()),
        ({"parameters": {"binary_data_output": True}}, {0, 1}),
        ({"outputs": [{"name": "label", "parameters": {"binary_data": True}}]}, {1}),
        ({"outputs": [{"name": "label"}], "parameters": {"binary_data_output": True}}, {1}),
        (
            {
                "outputs": [{"name": "label", "parameters": {"binary_data": False}}, {"name": "scores"}],
                "parameters": {"binary_data_output": True},
            },
            {0},
        ),
    ],
)
def test_each_output_comes_as_it_is_wished_for(wish: dict[str, Any], places: set[int]) -> None:
    assert decode({"inputs": [binary(ONE_IMAGE)], **wish}, ONE_IMAGE.tobytes()).binary == places


def test_the_reply_has_its_binary_tensors_behind_the_json_in_its_order() -> None:
    scores, label = np.array([[0.5, 2.0]], np.float32), np.array([3], np.int64)
    reply = wire().encode_binary((scores, label), id="a7", wanted=(1, 0), binary=frozenset({0, 1}))
    assert json.loads(reply.body[: reply.json_nbytes]) == {
        "model_name": "m",
        "model_version": "v1",
        "id": "a7",
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": 8}},
            {"name": "scores", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
        ],
    }
    assert reply.body[reply.json_nbytes :] == label.tobytes() + scores.tobytes()


def test_one_output_in_binary_and_one_in_json() -> None:
    scores, label = np.array([[0.5, 2.0]], np.float32), np.array([3], np.int64)
    reply = wire().encode_binary((scores, label), id="a7", wanted=(0, 1), binary=frozenset({0}))
    tensors = json.loads(reply.body[: reply.json_nbytes])["outputs"]
    assert [tensor.get("data") for tensor in tensors] == [None, [3]]
    assert reply.body[reply.json_nbytes :] == scores.tobytes()


TAIL = ONE_IMAGE.tobytes()
PROBLEMS: dict[str, tuple[Any, bytes, str]] = {
    "too few bytes": (
        {"inputs": [binary(ONE_IMAGE)]},
        TAIL[:-1],
        "`binary_data_size` is 24, and 23 bytes are left in the body - at `$.inputs[0]`",
    ),
    "too many bytes": (
        {"inputs": [binary(ONE_IMAGE)]},
        TAIL + b"x",
        "1 bytes behind the last binary tensor belong to none",
    ),
    "a size against the shape": (
        {"inputs": [binary(ONE_IMAGE, binary_data_size=20)]},
        TAIL[:20],
        "20 bytes, where 1 rows of `image` take 24 - at `$.inputs[0]`",
    ),
    "a shape against the size": (
        {"inputs": [binary(ONE_IMAGE) | {"shape": [2, 2, 3]}]},
        TAIL,
        "24 bytes, where 2 rows of `image` take 48 - at `$.inputs[0]`",
    ),
    "a shape that overflows": (
        {"inputs": [binary(ONE_IMAGE) | {"shape": [2**62, 2, 3]}]},
        TAIL,
        f"{2**62} rows: this model takes at most 4 in one request - at `$.inputs[0].shape`",
    ),
    "a negative size": (
        {"inputs": [binary(ONE_IMAGE, binary_data_size=-24)]},
        TAIL,
        "`binary_data_size` is no number of bytes - at `$.inputs[0].parameters.binary_data_size`",
    ),
    "a size in words": (
        {"inputs": [binary(ONE_IMAGE, binary_data_size="24")]},
        TAIL,
        "`binary_data_size` is no number of bytes - at `$.inputs[0].parameters.binary_data_size`",
    ),
    "a size beyond all bytes": (
        {"inputs": [binary(ONE_IMAGE, binary_data_size=10**30)]},
        TAIL,
        f"`binary_data_size` is {10**30}, and 24 bytes are left in the body - at `$.inputs[0]`",
    ),
    "data and size": (
        {"inputs": [binary(ONE_IMAGE) | {"data": [0, 1, 2, 3, 4, 5]}]},
        TAIL,
        "input `image` has both `data` and `binary_data_size` - at `$.inputs[0]`",
    ),
    "data in the JSON and bytes behind it": (
        {"inputs": [{"name": "image", "shape": [1, 2, 3], "datatype": "FP32", "data": [0, 1, 2, 3, 4, 5]}]},
        TAIL,
        "24 bytes behind the last binary tensor belong to none",
    ),
    "a wish that is none": (
        {
            "inputs": [binary(ONE_IMAGE)],
            "outputs": [{"name": "label", "parameters": {"binary_data": "yes"}}],
        },
        TAIL,
        "`binary_data` is neither true nor false - at `$.outputs[0].parameters.binary_data`",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_what_does_not_add_up_is_refused(case: str) -> None:
    content, tail, error = PROBLEMS[case]
    with pytest.raises(BadRequest) as caught:
        decode(content, tail)
    assert caught.value.message == error


def test_a_bool_is_a_byte_of_0_or_1() -> None:
    with pytest.raises(BadRequest, match="a byte that is neither 0 nor 1 in a BOOL tensor"):
        decode({"inputs": [binary(np.array([[True, False]]), MASK)]}, b"\x01\x02", MASK)


@pytest.mark.parametrize(
    ("body", "inputs", "error"),
    [
        (TAIL[:-1], (IMAGE,), "23 bytes, where 1 rows of `image` take 24 - at `$`"),
        (TAIL * 2, (IMAGE,), "48 bytes, where 1 rows of `image` take 24 - at `$`"),
        (TAIL, (IMAGE, LABEL), "a body without JSON is one input, and this model has 2"),
    ],
)
def test_raw_bytes_must_fit(body: bytes, inputs: tuple[TensorSpec, ...], error: str) -> None:
    with pytest.raises(BadRequest) as caught:
        wire(*inputs).decode_binary(body, json_nbytes=0)
    assert caught.value.message == error


@pytest.mark.parametrize("header", ["", "-1", "+5", "1_0", " 5", "5 ", "1e1", "0x5", "five", "\u0665", "9" * 20, "5,5"])
def test_a_header_that_is_no_length_is_refused(header: str) -> None:
    with pytest.raises(BadRequest, match="which is no length"):
        json_nbytes_of(header, body_nbytes=10)


def test_a_header_beyond_the_body_is_refused() -> None:
    with pytest.raises(BadRequest) as caught:
        json_nbytes_of("11", body_nbytes=10)
    assert caught.value.message == "`inference-header-content-length` is 11, and the body has 10 bytes"
    assert json_nbytes_of("10", body_nbytes=10) == 10


def test_a_header_that_cuts_the_json_is_refused() -> None:
    head = json.dumps({"inputs": [binary(ONE_IMAGE)]}).encode()
    with pytest.raises(BadRequest, match="the body is not JSON: Input data was truncated"):
        wire().decode_binary(head + TAIL, json_nbytes=len(head) - 1)
