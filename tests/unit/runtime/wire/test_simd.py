"""Large bodies: what simdjson reads, and that it reads nothing which msgspec would refuse or read otherwise."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from nomadserve_runtime.errors import BadRequest
from nomadserve_runtime.tensors import TensorSpec
from nomadserve_runtime.wire import ModelWire, Query, simd

GRID = TensorSpec("grid", "FP32", (4, 64))
COUNTS = TensorSpec("counts", "INT32", (512,))
LABEL = TensorSpec("label", "INT64", ())
FLAG = TensorSpec("flag", "BOOL", (4,))


@pytest.fixture
def read_by_simd(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each large body was read by simdjson."""
    taken: list[bool] = []
    original = simd.reading

    def reading(body: bytes, read: Any) -> Any:
        query = original(body, read)
        taken.append(query is not None)
        return query

    monkeypatch.setattr(simd, "reading", reading)
    return taken


def wire(*inputs: TensorSpec, rows_max: int = 600) -> ModelWire:
    return ModelWire("m", version="v1", inputs=inputs or (GRID,), outputs=(LABEL,), rows_max=rows_max)


def grid(rows: int = 2) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((rows, 4, 64)).astype(np.float32)


def tensor(array: np.ndarray, *, name: str = "grid", flat: bool = True, datatype: str = "FP32") -> dict[str, Any]:
    data = array.ravel().tolist() if flat else array.tolist()
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": data}


def test_a_large_plain_body_is_read_by_simdjson(read_by_simd: list[bool]) -> None:
    body = {"inputs": {"grid": grid().tolist()}, "id": "a[7", "timeout_ms": 250, "priority": 3}
    assert wire().decode_plain(json.dumps(body | {"id": "a7"}).encode()).inputs[0].tolist() == grid().tolist()
    query = wire().decode_plain(json.dumps(body).encode())
    # A bracket in a text may be a list too many: such a body is read slowly, and as well.
    assert read_by_simd == [True, False]
    assert (query.id, query.timeout_s, query.priority, query.rows) == ("a[7", 0.25, 3, 2)
    assert query.inputs[0].dtype == np.float32
    assert query.inputs[0].tolist() == grid().tolist()


@pytest.mark.parametrize("flat", [True, False])
def test_a_large_protocol_body_is_read_by_simdjson(flat: bool, read_by_simd: list[bool]) -> None:
    body = {
        "id": "a7",
        "parameters": {"priority": 2, "timeout": 5000, "binary_data_output": True},
        "inputs": [tensor(grid(), flat=flat)],
        "outputs": [{"name": "label", "parameters": {"binary_data": False}}],
    }
    query = wire().decode_infer(json.dumps(body, indent=1).encode())
    assert read_by_simd == [True]
    assert query.inputs[0].tolist() == grid().tolist()
    assert (query.id, query.timeout_s, query.priority, query.binary) == ("a7", 0.005, 2, frozenset())


def test_whole_numbers_and_rows_of_one_number_are_read_too(read_by_simd: list[bool]) -> None:
    both = wire(LABEL, COUNTS)
    body = {"inputs": {"counts": [[*range(512)]] * 3, "label": [2**62, -5, 0]}}
    query = both.decode_plain(json.dumps(body).encode())
    assert [array.tolist() for array in query.inputs] == [body["inputs"]["label"], body["inputs"]["counts"]]
    assert [array.dtype for array in query.inputs] == [np.int64, np.int32]
    assert read_by_simd == [True]


def test_a_small_body_and_booleans_never_get_there(read_by_simd: list[bool]) -> None:
    wire(LABEL).decode_plain(b'{"inputs": {"label": [1]}}')
    wire(FLAG).decode_plain(json.dumps({"inputs": {"flag": [[True] * 4] * 500}}).encode())
    assert read_by_simd == []


def large(change: Any) -> bytes:
    """A large plain body whose grid went through `change`."""
    rows = grid().tolist()
    return json.dumps({"inputs": {"grid": change(rows) or rows}}).encode()


def put(rows: Any, *where: int, value: Any) -> None:
    for place in where[:-1]:
        rows = rows[place]
    rows[where[-1]] = value


BAD: dict[str, tuple[bytes, str]] = {
    "a short row": (large(lambda r: put(r, 1, 2, value=[1.0])), "1 values, where 64 belong - at `$.inputs.grid[1][2]`"),
    "a number as a list of one": (
        large(lambda r: put(r, 1, 2, 3, value=[1.0])),
        "expected `float`, got `array` - at `$.inputs.grid[1][2][3]`",
    ),
    "lists that add up": (
        large(lambda r: put(r, 1, 2, value=[[1.0, 2.0], [], *[1.0] * 62])),
        "expected `float`, got `array` - at `$.inputs.grid[1][2][0]`",
    ),
    "rows that add up": (
        large(lambda r: r[0].append(r[1].pop())),
        "5 values, where 4 belong - at `$.inputs.grid[0]`",
    ),
    "flat": (large(lambda r: np.ravel(r).tolist()), "expected `array`, got `float` - at `$.inputs.grid[0]`"),
    "a text of the right length": (
        large(lambda r: put(r, 1, 2, value="x" * 64)),
        "expected `array`, got `str` - at `$.inputs.grid[1][2]`",
    ),
    "a text": (
        large(lambda r: put(r, 1, 2, 3, value="1")),
        "expected `float`, got `str` - at `$.inputs.grid[1][2][3]`",
    ),
    "a boolean": (
        large(lambda r: put(r, 1, 2, 3, value=True)),
        "expected `float`, got `bool` - at `$.inputs.grid[1][2][3]`",
    ),
    "null": (
        large(lambda r: put(r, 1, 2, 3, value=None)),
        "expected `float`, got `null` - at `$.inputs.grid[1][2][3]`",
    ),
    "not a number": (large(lambda r: put(r, 1, 2, 3, value=float("nan"))), "the body is not JSON: JSON is malformed"),
    "out of range": (
        large(lambda r: put(r, 1, 2, 3, value=1e39)),
        "a number is out of range for FP32 - at `$.inputs.grid`",
    ),
    "an object": (
        large(lambda r: put(r, 1, 2, value={"a": 1})),
        "expected `array`, got `object` - at `$.inputs.grid[1][2]`",
    ),
    "too many rows": (
        large(lambda r: r * 301),
        "602 rows: this model takes at most 600 in one request - at `$.inputs.grid`",
    ),
    "cut off": (large(lambda r: None)[:-9], "the body is not JSON: Input data was truncated"),
    "more behind": (large(lambda r: None) + b"]", "the body is not JSON: JSON is malformed: trailing characters"),
    "a byte order mark": (b"\xef\xbb\xbf" + large(lambda r: None), "the body is not JSON: JSON is malformed"),
    "an unknown key": (
        large(lambda r: None)[:-1] + b', "modle": "m"}',
        "object contains unknown field `modle` - at `$`",
    ),
    "a bad deadline": (
        large(lambda r: None)[:-1] + b', "timeout_ms": 0}',
        "expected `float` > 0.0 - at `$.timeout_ms`",
    ),
    "a list": (b"[" + b"1," * 4000 + b"1]", "expected `object`, got `array` - at `$`"),
    "inputs in a list": (b'{"inputs": [' + b"1," * 4000 + b"1]}", "expected `object`, got `array` - at `$.inputs`"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_large_bad_body_is_refused_in_the_same_words_as_a_small_one(case: str, read_by_simd: list[bool]) -> None:
    body, error = BAD[case]
    with pytest.raises(BadRequest) as caught:
        wire().decode_plain(body)
    assert caught.value.message.startswith(error)
    assert read_by_simd == [False]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"shape": [1, 4, 64]}, "512 values, where `shape` [1, 4, 64] takes 256 - at `$.inputs[0].data`"),
        ({"datatype": "FP64"}, "input `grid` is FP32, not FP64 - at `$.inputs[0].datatype`"),
        ({"data": [[1.0]] * 512}, "expected `array`, got `float` - at `$.inputs[0].data[0][0]`"),
        ({"data": [1.0, [2.0], *[0.5] * 510]}, "expected `float`, got `array` - at `$.inputs[0].data[1]`"),
    ],
)
def test_a_large_bad_protocol_body_too(change: dict[str, Any], error: str, read_by_simd: list[bool]) -> None:
    with pytest.raises(BadRequest) as caught:
        wire().decode_infer(json.dumps({"inputs": [tensor(grid()) | change], "pad": "x" * 4096}).encode())
    assert caught.value.message == error
    assert read_by_simd == [False]


def test_a_whole_number_that_the_type_can_not_hold_is_refused() -> None:
    with pytest.raises(BadRequest, match="a number is out of range for INT32"):
        wire(COUNTS).decode_plain(json.dumps({"inputs": {"counts": [[2**40] * 512]}}).encode())


@pytest.mark.parametrize("number", ["123456789012345678901234567890", "1E5", "-0", "-0.0", "0.1", "5e-324", "16777217"])
def test_both_ways_read_the_same_numbers(number: str) -> None:
    body = b'{"inputs": {"counts": [[' + b",".join([number.encode()] * 1024) + b"]]}}"
    spec = TensorSpec("counts", "FP32", (1024,))
    fast = wire(spec).decode_plain(body).inputs[0]
    slow = np.asarray(msgspec.json.decode(body, type=dict[str, dict[str, list[list[float]]]])["inputs"]["counts"])
    assert fast.tobytes() == slow.astype(np.float32).tobytes()


def test_a_key_that_is_there_twice_is_read_as_by_msgspec() -> None:
    one, two = (json.dumps(values.tolist()).encode() for values in (grid(), grid() + 1))
    body = b'{"inputs": {"grid": ' + one + b', "grid": ' + two + b"}}"
    assert wire().decode_plain(body).inputs[0].tolist() == (grid() + 1).tolist()


def test_after_a_bad_body_the_next_good_one_is_read_by_simdjson_again(read_by_simd: list[bool]) -> None:
    with pytest.raises(BadRequest):
        wire().decode_plain(BAD["a text"][0])
    good: list[Query] = [wire().decode_plain(large(lambda r: None)) for _ in range(2)]
    assert read_by_simd == [False, True, True]
    # Nothing of one body lives in the memory of the next.
    assert good[0].inputs[0].tolist() == good[1].inputs[0].tolist() == grid().tolist()


def test_without_the_library_everything_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simd, "simdjson", None)
    assert wire().decode_plain(large(lambda r: None)).inputs[0].tolist() == grid().tolist()
