"""Strings: in JSON, in binary, and as a whole body."""

import json
from typing import Any

import numpy as np
import pytest

from nomadserve_runtime.errors import BadRequest
from nomadserve_runtime.tensors import TEXT, TensorSpec
from nomadserve_runtime.wire import ModelWire, Query, texts

WORDS = TensorSpec("words", "BYTES", (2,))
AGE = TensorSpec("age", "INT64", (1,))
TWO_ROWS = [["Zürich", ""], ["a\0b", "日本"]]
PACKED = b"\x07\0\0\0Z\xc3\xbcrich\0\0\0\0\x03\0\0\0a\0b\x06\0\0\0\xe6\x97\xa5\xe6\x9c\xac"


def wire(*inputs: TensorSpec) -> ModelWire:
    return ModelWire("m", version="v1", inputs=inputs or (WORDS,), outputs=(WORDS, AGE), rows_max=4)


def given(data: Any = None, *, nbytes: int | None = None, shape: tuple[int, ...] = (2, 2)) -> bytes:
    content = {"data": data} if nbytes is None else {"parameters": {"binary_data_size": nbytes}}
    return json.dumps({"inputs": [{"name": "words", "datatype": "BYTES", "shape": shape, **content}]}).encode()


def decode_binary(packed: bytes, **changes: Any) -> Query:
    head = given(nbytes=len(packed), **changes)
    return wire().decode_binary(head + packed, json_nbytes=len(head))


def test_binary_strings_are_lengths_and_bytes_both_ways() -> None:
    query = decode_binary(PACKED)
    assert query.inputs[0].tolist() == TWO_ROWS
    assert texts.write(query.inputs[0]) == PACKED


def test_a_reply_may_have_strings_in_binary_and_numbers_in_json() -> None:
    outputs = np.array(TWO_ROWS, TEXT), np.array([[30], [40]])
    reply = wire().encode_binary(outputs, id="1", wanted=(0, 1), binary=frozenset({0}))
    strings, numbers = json.loads(reply.body[: reply.json_nbytes])["outputs"]
    assert strings["parameters"] == {"binary_data_size": len(PACKED)}
    assert (strings["datatype"], strings["shape"]) == ("BYTES", [2, 2])
    assert numbers["data"] == [30, 40]
    assert reply.body[reply.json_nbytes :] == PACKED


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (PACKED[:-1], f"{len(PACKED) - 1} bytes end within string 3 of 4"),
        (PACKED[:20], "20 bytes end within string 2 of 4"),
        (b"", "0 bytes end within string 0 of 4"),
        (PACKED + b"\0", "1 bytes are left behind 4 strings"),
        (b"\xff\xff\xff\xff" + PACKED, f"{len(PACKED) + 4} bytes end within string 0 of 4"),
        (b"\x01\0\0\0\xff" + PACKED, "a string is not UTF-8: invalid start byte"),
    ],
)
def test_binary_strings_that_do_not_add_up_are_refused(packed: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_binary(packed)
    assert caught.value.message == f"{words} - at `$.inputs[0]`"


@pytest.mark.parametrize("data", [TWO_ROWS, [*TWO_ROWS[0], *TWO_ROWS[1]]])
def test_json_strings_are_nested_or_flat(data: list[Any]) -> None:
    query = wire().decode_infer(given(data))
    assert (query.inputs[0].dtype, query.inputs[0].tolist()) == (TEXT, TWO_ROWS)


def test_a_long_body_of_strings_is_read_too() -> None:
    rows = [["x" * 30_000, "y"]]
    assert wire().decode_plain(json.dumps({"inputs": {"words": rows}}).encode()).inputs[0].tolist() == rows


def test_strings_and_numbers_go_together() -> None:
    query = wire(WORDS, AGE).decode_plain(b'{"inputs": {"words": [["a", "b"]], "age": [[30]]}}')
    assert [array.tolist() for array in query.inputs] == [[["a", "b"]], [[30]]]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([["a", 1]], "expected `str`, got `int` - at `$.inputs.words[0][1]`"),
        ([["a"]], "1 values, where 2 belong - at `$.inputs.words[0]`"),
        ([["a", "b"], ["c"]], "1 values, where 2 belong - at `$.inputs.words[1]`"),
        ([[]], "0 values, where 2 belong - at `$.inputs.words[0]`"),
        ([["a", "b"]] * 5, "5 rows: this model takes at most 4 in one request - at `$.inputs.words`"),
    ],
)
def test_json_that_is_no_rows_of_strings_is_refused(rows: Any, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        wire().decode_plain(json.dumps({"inputs": {"words": rows}}).encode())
    assert caught.value.message == words


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(BadRequest, match="the body is not JSON"):
        wire().decode_plain(b'{"inputs": {"words": [["\\ud800", "b"]]}}')


def test_a_body_without_json_is_one_string() -> None:
    line = wire(TensorSpec("line", "BYTES", (1,)))
    assert line.decode_binary("Grüezi".encode(), json_nbytes=0).inputs[0].tolist() == [["Grüezi"]]
    with pytest.raises(BadRequest, match="a string is not UTF-8"):
        line.decode_binary(b"\xff", json_nbytes=0)
    with pytest.raises(BadRequest, match="a body without JSON is one string, and a row of `words` has 2"):
        wire().decode_binary(b"a", json_nbytes=0)


def test_a_body_may_be_64_kib_longer_for_each_string() -> None:
    assert wire().body_nbytes_max - 64 * 1024 == 4 * 2 * 64 * 1024
