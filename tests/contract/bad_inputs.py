"""Requests that must be refused, each with its exact status and reply. `test_bad_inputs` sends them.

Two servers answer them: `one` serves the model `sum` (x: four FP32, at most 8 rows); `several` serves `mixed`
(flag: two BOOL, count: one INT8, half: one FP16), `wide` (x: 1,000 FP32) and `sum`.
"""

import gzip
import json
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PLAIN = "/v1/inference"
INFER = "/v2/models/sum/infer"
MIXED = "/v2/models/mixed/infer"
WIDE = "/v2/models/wide/infer"

# Bytes of the longest body that fits a model: 64 KiB, and 64 for each of its numbers.
SUM_NBYTES_MAX = 65536 + 8 * 4 * 64
WIDE_NBYTES_MAX = 65536 + 4 * 1000 * 64


@dataclass(frozen=True)
class Bad:
    """One bad request, and what must come back."""

    path: str
    body: bytes
    status: int
    error: str
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    server: str = "one"
    method: str = "POST"

    @property
    def reply(self) -> dict[str, str]:
        by_status = {400: "invalid", 404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported"}
        return {"error": self.error, "reason": self.reason or by_status[self.status]}


def plain(content: Any, error: str, status: int = 400, **more: Any) -> Bad:
    """A plain body, given as text or as what JSON is made of."""
    return Bad(PLAIN, content if isinstance(content, bytes) else json.dumps(content).encode(), status, error, **more)


def infer(content: Any, error: str, status: int = 400, path: str = INFER, **more: Any) -> Bad:
    """A protocol body."""
    return Bad(path, content if isinstance(content, bytes) else json.dumps(content).encode(), status, error, **more)


def binary(content: Any, tail: bytes, error: str, status: int = 400, *, header: str = "", **more: Any) -> Bad:
    """A protocol body with bytes behind its JSON; `header` says where that ends, truly where left away."""
    head = json.dumps(content).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": header or str(len(head)),
    }
    return Bad(INFER, head + tail, status, error, headers=headers, **more)


def rows(count: int) -> list[list[int]]:
    return [[1, 2, 3, 4]] * count


def tensor(**changes: Any) -> dict[str, Any]:
    """One input `x` of the protocol; a change to None takes a key away."""
    known = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]} | changes
    return {name: value for name, value in known.items() if value is not None}


def sized(nbytes: Any = 16, **changes: Any) -> dict[str, Any]:
    """The same in binary."""
    return tensor(data=None, parameters={"binary_data_size": nbytes}, **changes)


ROW = {"inputs": {"x": rows(1)}}
TAIL = np.array([1, 2, 3, 4], np.float32).tobytes()
TOO_LARGE = f"the body is longer than any that fits this model: {SUM_NBYTES_MAX} bytes"
UNPACKS_TOO_LARGE = f"the body unpacks to more than any that fits this model: {SUM_NBYTES_MAX} bytes"
HEADER = "`inference-header-content-length`"
MALFORMED = "the body is not JSON: JSON is malformed"
GZIP, DEFLATE = {"content-encoding": "gzip"}, {"content-encoding": "deflate"}
WIDE_ROW = [0.5] * 1000


def wide(**changes: Any) -> dict[str, Any]:
    return tensor(shape=[1, 1000], data=WIDE_ROW) | changes


def mixed(**changes: Any) -> list[dict[str, Any]]:
    """The three inputs of `mixed`, with other data for some."""
    given = {"flag": [True, False], "count": [1], "half": [0.5]} | changes
    kinds = {"flag": ("BOOL", [1, 2]), "count": ("INT8", [1, 1]), "half": ("FP16", [1, 1])}
    return [
        {"name": name, "datatype": kinds[name][0], "shape": kinds[name][1], "data": data}
        for name, data in given.items()
    ]


BAD: dict[str, Bad] = {
    # -- not JSON, or not all of it
    "an empty body": plain(b"", "the body is not JSON: Input data was truncated"),
    "a form": plain(b"x=1", f"{MALFORMED}: invalid character (byte 0)"),
    "cut off in a number": plain(b'{"inputs": {"x": [[1, 2', "the body is not JSON: Input data was truncated"),
    "cut off in a text": plain(b'{"id": "abc', "the body is not JSON: Input data was truncated"),
    "one bracket too few": plain(b'{"inputs": {"x": [[1, 2, 3, 4]]}', "the body is not JSON: Input data was truncated"),
    "one bracket too many": plain(b'{"inputs": {"x": [[1, 2, 3, 4]]}}}', f"{MALFORMED}: trailing characters (byte 34)"),
    "trailing text": plain(b'{"inputs": {"x": [[1, 2, 3, 4]]}} x', f"{MALFORMED}: trailing characters (byte 35)"),
    "two bodies": plain(b"{} {}", "object missing required field `inputs` - at `$`"),
    "a trailing comma": plain(b'{"inputs": {"x": [[1, 2, 3, 4,]]}}', f"{MALFORMED}: trailing comma in array (byte 30)"),
    "a byte order mark": plain(b"\xef\xbb\xbf{}", f"{MALFORMED}: invalid character (byte 0)"),
    "UTF-16": plain('{"inputs": {}}'.encode("utf-16"), f"{MALFORMED}: invalid character (byte 0)"),
    "bytes that are no UTF-8": plain(
        b'{"inputs": {"\xff": 1}}',
        "the body is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    ),
    "half a surrogate": plain(
        b'{"id": "\\ud800", "inputs": {"x": [[1, 2, 3, 4]]}}',
        f"{MALFORMED}: unexpected end of escaped utf-16 surrogate pair (byte 14)",
    ),
    "a control character in a text": plain(
        b'{"id": "a\x00b", "inputs": {"x": [[1, 2, 3, 4]]}}', f"{MALFORMED}: invalid character (byte 9)"
    ),
    "NaN": plain(b'{"inputs": {"x": [[NaN, 2, 3, 4]]}}', f"{MALFORMED}: invalid character (byte 19)"),
    "Infinity": plain(b'{"inputs": {"x": [[-Infinity, 2, 3, 4]]}}', f"{MALFORMED}: invalid character (byte 20)"),
    "a hexadecimal number": plain(
        b'{"inputs": {"x": [[0x1F, 2, 3, 4]]}}', f"{MALFORMED}: expected ',' or ']' (byte 20)"
    ),
    "a number with a leading zero": plain(
        b'{"inputs": {"x": [[01, 2, 3, 4]]}}', f"{MALFORMED}: invalid number (byte 20)"
    ),
    "a bomb of lists": infer(b'{"inputs": [], "a": ' + b"[" * 60_000, "the body is nested too deeply"),
    "a bomb of objects": infer(b'{"a": ' * 10_000, "the body is nested too deeply"),
    "a bomb in the place of a number": plain(
        b'{"inputs": {"x": ' + b"[" * 60_000, "expected `float`, got `array` - at `$.inputs.x[0][0]`"
    ),
    # -- JSON of another kind
    "a list": plain([], "expected `object`, got `array` - at `$`"),
    "null": plain(b"null", "expected `object`, got `null` - at `$`"),
    "no inputs": plain({}, "object missing required field `inputs` - at `$`"),
    "no input": plain({"inputs": {}}, "object missing required field `x` - at `$.inputs`"),
    "inputs in a list": plain({"inputs": [rows(1)]}, "expected `object`, got `array` - at `$.inputs`"),
    "an unknown input": plain({"inputs": {"x": rows(1), "z": 1}}, "object contains unknown field `z` - at `$.inputs`"),
    "an unknown key": plain(ROW | {"modle": "sum"}, "object contains unknown field `modle` - at `$`"),
    "a text for rows": plain({"inputs": {"x": "abc"}}, "expected `array`, got `str` - at `$.inputs.x`"),
    "base64": plain({"inputs": {"x": {"b64": "AACAPw=="}}}, "expected `array`, got `object` - at `$.inputs.x`"),
    "a row without its list": plain(
        {"inputs": {"x": [1, 2, 3, 4]}}, "expected `array`, got `int` - at `$.inputs.x[0]`"
    ),
    "a text in a row": plain(
        {"inputs": {"x": [[1, 2, "3", 4]]}}, "expected `float`, got `str` - at `$.inputs.x[0][2]`"
    ),
    "null in a row": plain(
        {"inputs": {"x": [[1, 2, 3, None]]}}, "expected `float`, got `null` - at `$.inputs.x[0][3]`"
    ),
    "true in a row": plain(
        {"inputs": {"x": [[1, 2, 3, True]]}}, "expected `float`, got `bool` - at `$.inputs.x[0][3]`"
    ),
    "a short row": plain({"inputs": {"x": [[1, 2, 3]]}}, "3 values, where 4 belong - at `$.inputs.x[0]`"),
    "one short row of several": plain(
        {"inputs": {"x": [*rows(2), [1]]}}, "1 values, where 4 belong - at `$.inputs.x[2]`"
    ),
    "a long row": plain({"inputs": {"x": [[1, 2, 3, 4, 5]]}}, "5 values, where 4 belong - at `$.inputs.x[0]`"),
    "an empty row": plain({"inputs": {"x": [[]]}}, "0 values, where 4 belong - at `$.inputs.x[0]`"),
    "no rows": plain({"inputs": {"x": []}}, "0 rows: a request has at least 1 - at `$.inputs.x`"),
    "too many rows": plain(
        {"inputs": {"x": rows(9)}}, "9 rows: this model takes at most 8 in one request - at `$.inputs.x`"
    ),
    "too large a number for FP32": plain(
        {"inputs": {"x": [[1e300, 0, 0, 0]]}}, "a number is out of range for FP32 - at `$.inputs.x`"
    ),
    "too large a number for anything": plain(
        b'{"inputs": {"x": [[1e999, 0, 0, 0]]}}', "number out of range - at `$.inputs.x[0][0]`"
    ),
    "a deadline in the past": plain(ROW | {"timeout_ms": -1}, "expected `float` > 0.0 - at `$.timeout_ms`"),
    "a deadline in words": plain(ROW | {"timeout_ms": "1s"}, "expected `float`, got `str` - at `$.timeout_ms`"),
    "a priority in words": plain(ROW | {"priority": "high"}, "expected `int`, got `str` - at `$.priority`"),
    "a negative priority": plain(ROW | {"priority": -1}, "expected `int` >= 0 - at `$.priority`"),
    "an id that is a number": plain(ROW | {"id": 7}, "expected `str`, got `int` - at `$.id`"),
    "another model": plain(ROW | {"model": "cat"}, "no model `cat` is served here, but `sum`", 404),
    "no model where there are several": plain(
        ROW, "several models are served here, so `model` must name one of `mixed`, `wide`, `sum`", server="several"
    ),
    "an unknown one of several models": plain(
        ROW | {"model": "cat"}, "no model `cat` is served here, but `mixed`, `wide`, `sum`", 404, server="several"
    ),
    # -- the protocol
    "a protocol request without inputs": infer({"inputs": []}, "input `x` is missing - at `$.inputs`"),
    "inputs as an object": infer({"inputs": {"x": rows(1)}}, "expected `array`, got `object` - at `$.inputs`"),
    "an input given twice": infer({"inputs": [tensor(), tensor()]}, "an input is given twice - at `$.inputs`"),
    "an input without a name": infer(
        {"inputs": [tensor(name=None)]}, "object missing required field `name` - at `$.inputs[0]`"
    ),
    "an unknown tensor": infer({"inputs": [tensor(name="z")]}, "the model has no input `z` - at `$.inputs[0].name`"),
    "another datatype": infer(
        {"inputs": [tensor(datatype="INT64")]}, "input `x` is FP32, not INT64 - at `$.inputs[0].datatype`"
    ),
    "an invented datatype": infer(
        {"inputs": [tensor(datatype="FP31")]}, "input `x` is FP32, not FP31 - at `$.inputs[0].datatype`"
    ),
    "strings": infer(
        {"inputs": [tensor(datatype="BYTES", data=["a", "b", "c", "d"])]},
        "input `x` is FP32, not BYTES - at `$.inputs[0].datatype`",
    ),
    "a shape without the rows": infer(
        {"inputs": [tensor(shape=[4])]}, "input `x` takes the shape [rows, 4], not [4] - at `$.inputs[0].shape`"
    ),
    "a negative shape": infer(
        {"inputs": [tensor(shape=[-1, 4])]}, "-1 rows: a request has at least 1 - at `$.inputs[0].shape`"
    ),
    "a shape that is no number": infer(
        {"inputs": [tensor(shape=[1.5, 4])]}, "expected `int`, got `float` - at `$.inputs[0].shape[0]`"
    ),
    "a shape beyond all memory": infer(
        {"inputs": [tensor(shape=[2**62, 4])]},
        f"{2**62} rows: this model takes at most 8 in one request - at `$.inputs[0].shape`",
    ),
    "a shape that lies": infer(
        {"inputs": [tensor(shape=[2, 4])]},
        "4 values, where `shape` [2, 4] takes 8 - at `$.inputs[0].data`",
    ),
    "a shape that lies of nested data": infer(
        {"inputs": [tensor(shape=[2, 4], data=rows(3))]}, "3 rows, where `shape` says 2 - at `$.inputs[0].data`"
    ),
    "a text in flat data": infer(
        {"inputs": [tensor(data=[1, 2, 3, "4"])]}, "expected `float`, got `str` - at `$.inputs[0].data[3]`"
    ),
    "flat data with a list in it": infer(
        {"inputs": [tensor(data=[1, 2, 3, [4]])]}, "expected `float`, got `array` - at `$.inputs[0].data[3]`"
    ),
    "no data": infer({"inputs": [tensor(data=None)]}, "input `x` has no `data` - at `$.inputs[0]`"),
    "shared memory": infer(
        {"inputs": [tensor(data=None, parameters={"shared_memory_region": "r"})]},
        "tensors in shared memory are not read: send `data`, or bytes - at `$.inputs[0]`",
        415,
    ),
    "an unknown output": infer(
        {"inputs": [tensor()], "outputs": [{"name": "z"}]}, "the model has no output `z` - at `$.outputs[0].name`"
    ),
    "a sequence": infer(
        {"inputs": [tensor()], "parameters": {"sequence_id": 1}},
        "`sequence_id` is not served here - at `$.parameters.sequence_id`",
        415,
    ),
    "a classification": infer(
        {"inputs": [tensor()], "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
        "`classification` is not served here - at `$.outputs[0].parameters.classification`",
        415,
    ),
    "a timeout that is no number": infer(
        {"inputs": [tensor()], "parameters": {"timeout": 1.5}},
        f"`timeout` is no whole number from 0 to {2**63 - 1} - at `$.parameters.timeout`",
    ),
    "an unknown model": infer(
        {"inputs": [tensor()]}, "no model `cat` is served here, but `sum`", 404, "/v2/models/cat/infer"
    ),
    "an unknown version": infer(
        {"inputs": [tensor()]},
        "the model `sum` is here in version `v7`, not `v8`",
        404,
        "/v2/models/sum/versions/v8/infer",
    ),
    "a number for a boolean": infer(
        {"inputs": mixed(flag=[1, 0])},
        "expected `bool`, got `int` - at `$.inputs[0].data[0]`",
        400,
        MIXED,
        server="several",
    ),
    "a fraction for a whole number": infer(
        {"inputs": mixed(count=[1.5])},
        "expected `int`, got `float` - at `$.inputs[1].data[0]`",
        400,
        MIXED,
        server="several",
    ),
    "too large a whole number": infer(
        {"inputs": mixed(count=[128])},
        "a number is out of range for INT8 - at `$.inputs[1].data`",
        400,
        MIXED,
        server="several",
    ),
    "too large a half": infer(
        {"inputs": mixed(half=[70000.0])},
        "a number is out of range for FP16 - at `$.inputs[2].data`",
        400,
        MIXED,
        server="several",
    ),
    "one input of three": infer(
        {"inputs": mixed()[:1]}, "input `count` is missing - at `$.inputs`", 400, MIXED, server="several"
    ),
    "inputs of unequal rows": plain(
        {"model": "mixed", "inputs": {"flag": [[True, False]] * 2, "count": [[1]], "half": [[1]]}},
        "the inputs differ in their number of rows: `flag` has 2, `count` has 1, `half` has 1 - at `$.inputs`",
        server="several",
    ),
    # -- large bodies, which are read another way
    "a text far inside a large body": infer(
        {"inputs": [wide(data=[*WIDE_ROW[:-1], "x"])]},
        "expected `float`, got `str` - at `$.inputs[0].data[999]`",
        400,
        WIDE,
        server="several",
    ),
    "a list far inside a large body": infer(
        {"inputs": [wide(data=[*WIDE_ROW[:-1], [0.5]])]},
        "expected `float`, got `array` - at `$.inputs[0].data[999]`",
        400,
        WIDE,
        server="several",
    ),
    "a large body that is too short": infer(
        {"inputs": [wide(data=WIDE_ROW[:-1])]},
        "999 values, where `shape` [1, 1000] takes 1000 - at `$.inputs[0].data`",
        400,
        WIDE,
        server="several",
    ),
    "a large body that is cut off": infer(
        json.dumps({"inputs": [wide()]}).encode()[:-4],
        "the body is not JSON: Input data was truncated",
        400,
        WIDE,
        server="several",
    ),
    # -- in binary
    "fewer bytes than announced": binary(
        {"inputs": [sized()]},
        TAIL[:-1],
        "`binary_data_size` is 16, and 15 bytes are left in the body - at `$.inputs[0]`",
    ),
    "more bytes than announced": binary(
        {"inputs": [sized()]}, TAIL + b"x", "1 bytes behind the last binary tensor belong to none"
    ),
    "a size that is not the shape's": binary(
        {"inputs": [sized(12)]}, TAIL[:12], "12 bytes, where 1 rows of `x` take 16 - at `$.inputs[0]`"
    ),
    "a negative size": binary(
        {"inputs": [sized(-16)]},
        TAIL,
        "`binary_data_size` is no number of bytes - at `$.inputs[0].parameters.binary_data_size`",
    ),
    "a size beyond all memory": binary(
        {"inputs": [sized(2**63)]},
        TAIL,
        f"`binary_data_size` is {2**63}, and 16 bytes are left in the body - at `$.inputs[0]`",
    ),
    "a size without the bytes": infer(
        {"inputs": [sized()]}, "`binary_data_size` is 16, and 0 bytes are left in the body - at `$.inputs[0]`"
    ),
    "data and bytes": binary(
        {"inputs": [tensor(parameters={"binary_data_size": 16})]},
        TAIL,
        "input `x` has both `data` and `binary_data_size` - at `$.inputs[0]`",
    ),
    "bytes that belong to nothing": binary(
        {"inputs": [tensor()]}, TAIL, "16 bytes behind the last binary tensor belong to none"
    ),
    "raw bytes that are no row": Bad(
        INFER,
        TAIL + b"x",
        400,
        "17 bytes, where 1 rows of `x` take 16 - at `$`",
        headers={"content-type": "application/octet-stream", "inference-header-content-length": "0"},
    ),
    "raw bytes for three inputs": Bad(
        MIXED,
        b"\x01\x00\x01\x00\x00",
        400,
        "a body without JSON is one input, and this model has 3",
        server="several",
        headers={"content-type": "application/octet-stream", "inference-header-content-length": "0"},
    ),
    "a length that is no number": binary(
        {"inputs": [sized()]}, TAIL, f"{HEADER} is `ten`, which is no length", header="ten"
    ),
    "a negative length": binary({"inputs": [sized()]}, TAIL, f"{HEADER} is `-1`, which is no length", header="-1"),
    "a length beyond 64 bits": binary(
        {"inputs": [sized()]}, TAIL, f"{HEADER} is `{'9' * 30}`, which is no length", header="9" * 30
    ),
    "a length beyond the body": binary(
        {"inputs": [sized()]}, TAIL, f"{HEADER} is 99999, and the body has 120 bytes", header="99999"
    ),
    "a length that cuts the JSON": binary(
        {"inputs": [sized()]}, TAIL, "the body is not JSON: Input data was truncated", header="20"
    ),
    "a length that reaches into the bytes": binary(
        {"inputs": [sized()]}, TAIL, f"{MALFORMED}: trailing characters (byte 105)", header="110"
    ),
    "binary in a plain request": Bad(
        PLAIN,
        b'{"inputs": {}}' + TAIL,
        415,
        "binary tensors go to `/v2/models/sum/infer`",
        headers={"content-type": "application/octet-stream", "inference-header-content-length": "14"},
    ),
    "bytes without a word of where the JSON ends": Bad(
        INFER,
        TAIL,
        415,
        f"the body is application/octet-stream: the header {HEADER} must say where its JSON ends",
        headers={"content-type": "application/octet-stream"},
    ),
    # -- packed
    "gzip that is none": plain(ROW, "the body is not gzip", headers=GZIP),
    "deflate that is gzip": plain(gzip.compress(b"{}"), "the body is not deflate", headers=DEFLATE),
    "gzip that is cut off": plain(
        gzip.compress(json.dumps(ROW).encode())[:-5], "the body ends in the middle of its gzip", headers=GZIP
    ),
    "gzip with more behind": plain(gzip.compress(b"{}") + b"more", "4 bytes follow the gzip of the body", headers=GZIP),
    "gzip with a wrong checksum": plain(
        gzip.compress(json.dumps(ROW).encode())[:-8] + b"\0" * 8, "the body is not gzip", headers=GZIP
    ),
    "a bomb of zeros": plain(gzip.compress(bytes(20_000_000)), UNPACKS_TOO_LARGE, 413, headers=GZIP),
    "a bomb of blanks in deflate": plain(zlib.compress(b" " * 20_000_000), UNPACKS_TOO_LARGE, 413, headers=DEFLATE),
    "brotli": plain(
        ROW, "the body is in `br`: send it as it is, or in gzip or deflate", 415, headers={"content-encoding": "br"}
    ),
    # -- the head
    "a type that is not JSON": plain(
        ROW, "the body is text/csv: send `content-type: application/json`", 415, headers={"content-type": "text/csv"}
    ),
    "a file upload": plain(
        ROW,
        "the body is multipart/form-data: send `content-type: application/json`",
        415,
        headers={"content-type": "multipart/form-data"},
    ),
    "a deadline header in words": plain(
        ROW,
        "`x-nomadserve-timeout-ms` is `soon`, and no number of milliseconds above 0",
        headers={"x-nomadserve-timeout-ms": "soon"},
    ),
    "a deadline header of nothing": plain(
        ROW,
        "`x-nomadserve-timeout-ms` is `0`, and no number of milliseconds above 0",
        headers={"x-nomadserve-timeout-ms": "0"},
    ),
    "too long a body": plain(b" " * (SUM_NBYTES_MAX + 1), TOO_LARGE, 413),
    "too long a body of one of several": plain(
        b" " * (WIDE_NBYTES_MAX + 1),
        f"the body is longer than any that fits this model: {WIDE_NBYTES_MAX} bytes",
        413,
        server="several",
    ),
    # -- elsewhere
    "a GET": Bad(PLAIN, b"", 405, "Method Not Allowed", method="GET"),
    "a PUT": Bad(INFER, b"{}", 405, "Method Not Allowed", method="PUT"),
    "a path that is not there": Bad("/v2/model/sum/infer", b"{}", 404, "there is nothing at `/v2/model/sum/infer`"),
    "a load that is not allowed": Bad(
        "/v2/repository/models/sum/load",
        b"{}",
        403,
        "models can't be loaded and unloaded here: `NOMADSERVE_REPOSITORY` is not 1",
        "forbidden",
    ),
}
