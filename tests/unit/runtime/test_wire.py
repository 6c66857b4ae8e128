import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from nomadserve_runtime.errors import BadRequest, Fault, NotFound, Unsupported
from nomadserve_runtime.tensors import DTYPES, TensorSpec
from nomadserve_runtime.wire import ModelWire, Query, model_named_in

IMAGE = TensorSpec("image", "FP32", (2, 3))
SCORES = TensorSpec("scores", "FP32", (2,))
LABEL = TensorSpec("label", "INT64", ())
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def wire(*inputs: TensorSpec, rows_max: int = 4) -> ModelWire:
    return ModelWire("digits", version="v1", inputs=inputs or (IMAGE,), outputs=(SCORES, LABEL), rows_max=rows_max)


def plain(body: Any, *inputs: TensorSpec) -> Query:
    return wire(*inputs).decode_plain(body if isinstance(body, bytes) else json.dumps(body).encode())


def infer(body: Any, *inputs: TensorSpec) -> Query:
    return wire(*inputs).decode_infer(body if isinstance(body, bytes) else json.dumps(body).encode())


def image(rows: int = 1) -> list[Any]:
    return np.arange(rows * 6).reshape(rows, 2, 3).tolist()


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "image", "shape": [1, 2, 3], "datatype": "FP32", "data": image()} | changes


def test_plain_rows_become_arrays_of_the_models_type() -> None:
    query = plain({"inputs": {"image": image(2)}})
    assert query.rows == 2
    assert query.inputs[0].dtype == np.float32
    assert query.inputs[0].tolist() == image(2)
    assert (query.id, query.timeout_s, query.outputs) == ("", math.inf, (0, 1))


def test_plain_metadata_is_read() -> None:
    query = plain({"inputs": {"image": image()}, "id": "a7", "timeout_ms": 250, "model": "digits", "priority": 2})
    assert (query.id, query.timeout_s, query.priority) == ("a7", 0.25, 2)


def test_inputs_come_in_the_order_of_the_model() -> None:
    query = plain({"inputs": {"label": [7], "image": image()}}, IMAGE, LABEL)
    assert [array.shape for array in query.inputs] == [(1, 2, 3), (1,)]


def test_an_input_may_have_any_name() -> None:
    spec = TensorSpec("serving_default.x:0", "FP32", (1,))
    assert plain({"inputs": {"serving_default.x:0": [[5]]}}, spec).inputs[0].tolist() == [[5.0]]


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_is_read_and_written(datatype: str) -> None:
    spec = TensorSpec("x", datatype, (2,))
    one_way = ModelWire("m", version="v", inputs=(spec,), outputs=(spec,), rows_max=1)
    values = {"BOOL": [[True, False]], "BYTES": [["Zürich", ""]]}.get(datatype, [[1, 0]])
    query = one_way.decode_plain(json.dumps({"inputs": {"x": values}}).encode())
    assert query.inputs[0].dtype == spec.dtype
    assert json.loads(one_way.encode_plain(query.inputs, id="1", time=NOW))["outputs"] == {"x": values}


@pytest.mark.parametrize("data", [image(2), np.ravel(image(2)).tolist()])
def test_protocol_data_is_nested_or_flat(data: list[Any]) -> None:
    query = infer({"inputs": [tensor(shape=[2, 2, 3], data=data)], "id": "9"})
    assert query.inputs[0].tolist() == image(2)
    assert (query.rows, query.id) == (2, "9")


def test_protocol_parameters_are_read() -> None:
    query = infer({"inputs": [tensor()], "parameters": {"timeout": 2500, "priority": 1}})
    assert (query.timeout_s, query.priority) == (0.0025, 1)
    none = infer({"inputs": [tensor()], "parameters": {"timeout": 0, "priority": 0}})
    assert (none.timeout_s, none.priority) == (math.inf, 0)


def test_an_output_may_be_wanted_twice_and_comes_once() -> None:
    assert infer({"inputs": [tensor()], "outputs": [{"name": "label"}, {"name": "label"}]}).outputs == (1,)


def test_blanks_between_brackets_do_not_flatten_data() -> None:
    body = json.dumps({"inputs": [tensor()]}, indent=4).encode()
    assert infer(body).inputs[0].tolist() == image()


def test_a_protocol_request_may_choose_its_outputs() -> None:
    assert infer({"inputs": [tensor()], "outputs": [{"name": "label"}]}).outputs == (1,)
    assert infer({"inputs": [tensor()], "outputs": [{"name": "label"}, {"name": "scores"}]}).outputs == (1, 0)


def test_what_the_protocol_may_add_later_is_ignored() -> None:
    body = {"inputs": [tensor(parameters={"a": 1})], "parameters": {"binary_data_output": True}, "new": {}}
    assert infer(body).rows == 1


PLAIN_PROBLEMS: list[tuple[Any, str]] = [
    (b"", "the body is not JSON: Input data was truncated"),
    (b"\xff", "the body is not JSON: JSON is malformed: invalid character (byte 0)"),
    (b'{"inputs": {"image": [[[NaN', "the body is not JSON: JSON is malformed: invalid character (byte 24)"),
    (b'{"inputs": {"image": ' + b"[" * 100_000, "expected `float`, got `array` - at `$.inputs.image[0][0][0]`"),
    (b"[]", "expected `object`, got `array` - at `$`"),
    ({}, "object missing required field `inputs` - at `$`"),
    ({"inputs": {}}, "object missing required field `image` - at `$.inputs`"),
    ({"inputs": {"image": image(), "imagee": 1}}, "object contains unknown field `imagee` - at `$.inputs`"),
    ({"inputs": {"image": image()}, "timeout": 1}, "object contains unknown field `timeout` - at `$`"),
    ({"inputs": {"image": image()}, "timeout_ms": 0}, "expected `float` > 0.0 - at `$.timeout_ms`"),
    ({"inputs": {"image": image()}, "priority": -1}, "expected `int` >= 0 - at `$.priority`"),
    ({"inputs": {"image": image()}, "id": 7}, "expected `str`, got `int` - at `$.id`"),
    ({"inputs": {"image": 5}}, "expected `array`, got `int` - at `$.inputs.image`"),
    ({"inputs": {"image": [[[1, 2, "x"], [1, 2, 3]]]}}, "expected `float`, got `str` - at `$.inputs.image[0][0][2]`"),
    ({"inputs": {"image": [[[1, 2, None], [1, 2, 3]]]}}, "expected `float`, got `null` - at `$.inputs.image[0][0][2]`"),
    ({"inputs": {"image": [1, 2]}}, "expected `array`, got `int` - at `$.inputs.image[0]`"),
    ({"inputs": {"image": []}}, "0 rows: a request has at least 1 - at `$.inputs.image`"),
    ({"inputs": {"image": image(5)}}, "5 rows: this model takes at most 4 in one request - at `$.inputs.image`"),
    ({"inputs": {"image": [[[1, 2, 3]]]}}, "1 values, where 2 belong - at `$.inputs.image[0]`"),
    ({"inputs": {"image": [[[1, 2, 3], [1, 2]]]}}, "2 values, where 3 belong - at `$.inputs.image[0][1]`"),
    ({"inputs": {"image": [*image(), [[1], [2]]]}}, "1 values, where 3 belong - at `$.inputs.image[1][0]`"),
    (b'{"inputs":{"image":[[[1e39,0,0],[0,0,0]]]}}', "a number is out of range for FP32 - at `$.inputs.image`"),
    (b'{"inputs":{"image":[[[1e999,0,0],[0,0,0]]]}}', "number out of range - at `$.inputs.image[0][0][0]`"),
]


@pytest.mark.parametrize(("body", "message"), PLAIN_PROBLEMS)
def test_a_bad_plain_body_is_refused_with_the_place_and_the_reason(body: Any, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        plain(body)
    assert caught.value.message == message


INFER_PROBLEMS: list[tuple[Any, type[Fault], str]] = [
    ({"inputs": []}, BadRequest, "input `image` is missing - at `$.inputs`"),
    ({"inputs": [tensor(), tensor()]}, BadRequest, "an input is given twice - at `$.inputs`"),
    ({"inputs": [tensor(name="img")]}, BadRequest, "the model has no input `img` - at `$.inputs[0].name`"),
    ({"inputs": [{"name": "image"}]}, BadRequest, "object missing required field `shape` - at `$.inputs[0]`"),
    (
        {"inputs": [tensor(datatype="FP64")]},
        BadRequest,
        "input `image` is FP32, not FP64 - at `$.inputs[0].datatype`",
    ),
    (
        {"inputs": [tensor(shape=[1, 6])]},
        BadRequest,
        "input `image` takes the shape [rows, 2, 3], not [1, 6] - at `$.inputs[0].shape`",
    ),
    (
        {"inputs": [tensor(shape=[0, 2, 3])]},
        BadRequest,
        "0 rows: a request has at least 1 - at `$.inputs[0].shape`",
    ),
    (
        {"inputs": [tensor(shape=[10**30, 2, 3])]},
        BadRequest,
        f"{10**30} rows: this model takes at most 4 in one request - at `$.inputs[0].shape`",
    ),
    (
        {"inputs": [tensor(shape=[2, 2, 3])]},
        BadRequest,
        "1 rows, where `shape` says 2 - at `$.inputs[0].data`",
    ),
    (
        {"inputs": [tensor(data=[1, 2, 3])]},
        BadRequest,
        "3 values, where `shape` [1, 2, 3] takes 6 - at `$.inputs[0].data`",
    ),
    (
        {"inputs": [tensor(data=[1, 2, 3, 4, True, 6])]},
        BadRequest,
        "expected `float`, got `bool` - at `$.inputs[0].data[4]`",
    ),
    (
        {"inputs": [tensor(data=[[[1, 2, 3], [1, 2, {}]]])]},
        BadRequest,
        "expected `float`, got `object` - at `$.inputs[0].data[0][1][2]`",
    ),
    ({"inputs": [tensor(data="abc")]}, BadRequest, "expected `array`, got `str` - at `$.inputs[0].data`"),
    (
        {"inputs": [{"name": "image", "shape": [1, 2, 3], "datatype": "FP32"}]},
        BadRequest,
        "input `image` has no `data` - at `$.inputs[0]`",
    ),
    (
        {"inputs": [{"name": "image", "shape": [1, 2, 3], "datatype": "FP32", "parameters": {"binary_data_size": 24}}]},
        BadRequest,
        "`binary_data_size` is 24, and 0 bytes are left in the body - at `$.inputs[0]`",
    ),
    (
        {"inputs": [tensor(parameters={"binary_data_size": 24})]},
        BadRequest,
        "input `image` has both `data` and `binary_data_size` - at `$.inputs[0]`",
    ),
    (
        {"inputs": [{"name": "image", "shape": [1], "datatype": "FP32", "parameters": {"shared_memory_region": "r"}}]},
        BadRequest,
        "input `image` takes the shape [rows, 2, 3], not [1] - at `$.inputs[0].shape`",
    ),
    (
        {
            "inputs": [
                {"name": "image", "shape": [1, 2, 3], "datatype": "FP32", "parameters": {"shared_memory_region": "r"}}
            ]
        },
        Unsupported,
        "tensors in shared memory are not read: send `data`, or bytes - at `$.inputs[0]`",
    ),
    (
        {"inputs": [tensor()], "parameters": {"sequence_id": 5}},
        Unsupported,
        "`sequence_id` is not served here - at `$.parameters.sequence_id`",
    ),
    (
        {"inputs": [tensor()], "parameters": {"timeout": -1}},
        BadRequest,
        f"`timeout` is no whole number from 0 to {2**63 - 1} - at `$.parameters.timeout`",
    ),
    (
        {"inputs": [tensor()], "parameters": {"priority": "high"}},
        BadRequest,
        f"`priority` is no whole number from 0 to {2**31 - 1} - at `$.parameters.priority`",
    ),
    (
        {"inputs": [tensor()], "parameters": {"binary_data_output": 1}},
        BadRequest,
        "`binary_data_output` is neither true nor false - at `$.parameters.binary_data_output`",
    ),
    (
        {"inputs": [tensor()], "outputs": [{"name": "label", "parameters": {"classification": 3}}]},
        Unsupported,
        "`classification` is not served here - at `$.outputs[0].parameters.classification`",
    ),
    (
        {"inputs": [tensor()], "outputs": [{"name": "score"}]},
        BadRequest,
        "the model has no output `score` - at `$.outputs[0].name`",
    ),
]


@pytest.mark.parametrize(("body", "kind", "message"), INFER_PROBLEMS)
def test_a_bad_protocol_body_is_refused_with_the_place_and_the_reason(
    body: Any, kind: type[Fault], message: str
) -> None:
    with pytest.raises(Fault) as caught:
        infer(body)
    assert (type(caught.value), caught.value.message) == (kind, message)


def test_a_body_nested_beyond_reason_is_refused() -> None:
    with pytest.raises(BadRequest, match="nested too deeply"):
        infer(b'{"inputs": [], "new": ' + b"[" * 100_000)


@pytest.mark.parametrize(
    ("datatype", "value", "message"),
    [
        ("UINT8", 256, "a number is out of range for UINT8 - at `$.inputs.x`"),
        ("UINT8", -1, "a number is out of range for UINT8 - at `$.inputs.x`"),
        ("INT64", 2**63, "a number is out of range for INT64 - at `$.inputs.x`"),
        ("FP16", 1e6, "a number is out of range for FP16 - at `$.inputs.x`"),
        ("INT32", 1.5, "expected `int`, got `float` - at `$.inputs.x[0]`"),
        ("BOOL", 1, "expected `bool`, got `int` - at `$.inputs.x[0]`"),
    ],
)
def test_a_number_that_the_type_can_not_hold_is_refused(datatype: str, value: float, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        plain({"inputs": {"x": [value]}}, TensorSpec("x", datatype, ()))
    assert caught.value.message == message


def test_inputs_must_have_the_same_number_of_rows() -> None:
    with pytest.raises(BadRequest) as caught:
        plain({"inputs": {"image": image(2), "label": [1]}}, IMAGE, LABEL)
    assert caught.value.message == (
        "the inputs differ in their number of rows: `image` has 2, `label` has 1 - at `$.inputs`"
    )


def test_a_plain_body_for_another_model_is_refused() -> None:
    with pytest.raises(NotFound, match="no model `cats` is served here, but `digits`"):
        plain({"inputs": {"image": image()}, "model": "cats"})


def test_the_model_is_found_in_a_body_whatever_else_is_in_it() -> None:
    assert model_named_in(b'{"inputs": {"x": [[1, "a"]]}, "model": "cats"}') == "cats"
    assert model_named_in(b"{}") == ""


def test_the_plain_reply_carries_what_the_contract_says() -> None:
    outputs = (np.array([[0.5, 2.0]], np.float32), np.array([3], np.int64))
    reply = wire().encode_plain(outputs, id="a7", time=NOW)
    assert json.loads(reply) == {
        "id": "a7",
        "model": "digits",
        "version": "v1",
        "time": "2026-01-02T03:04:05Z",
        "outputs": {"scores": [[0.5, 2.0]], "label": [3]},
    }


def test_the_protocol_reply_has_the_wanted_outputs_flat() -> None:
    outputs = (np.array([[0.5, 2.0], [1.0, 4.0]], np.float32), np.array([3, 4], np.int64))
    reply = wire().encode_infer(outputs, id="a7", wanted=(1, 0))
    assert json.loads(reply) == {
        "model_name": "digits",
        "model_version": "v1",
        "id": "a7",
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [2], "data": [3, 4]},
            {"name": "scores", "datatype": "FP32", "shape": [2, 2], "data": [0.5, 2.0, 1.0, 4.0]},
        ],
    }


def test_numbers_are_written_as_short_as_they_can_be_read_back() -> None:
    numbers = np.random.default_rng(7).standard_normal((4, 2)).astype(np.float32)
    reply = wire().encode_infer((numbers, np.arange(4)), id="1", wanted=(0,))
    assert np.asarray(json.loads(reply)["outputs"][0]["data"], np.float32).tobytes() == numbers.tobytes()
    assert b"0.1," in wire().encode_plain((np.array([[0.1, 1]], np.float32), np.array([3], np.int64)), id="1", time=NOW)


def test_what_json_has_no_word_for_becomes_null() -> None:
    outputs = (np.array([[math.nan, math.inf]], np.float32), np.array([3], np.int64))
    assert json.loads(wire().encode_plain(outputs, id="1", time=NOW))["outputs"]["scores"] == [[None, None]]


def test_the_longest_valid_body_fits_under_the_limit() -> None:
    spec = TensorSpec("x", "FP64", (100,))
    rows = np.full((4, 100), -1.2345678901234567e-300).tolist()
    body = json.dumps({"inputs": {"x": rows}}, indent=8).encode()
    assert len(body) < wire(spec).body_nbytes_max
    assert plain(body, spec).rows == 4
