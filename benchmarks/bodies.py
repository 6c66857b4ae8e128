"""How one row becomes a request body, and a reply body becomes scores, in each dialect. Pure."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Encode = Callable[[np.ndarray], bytes]
Decode = Callable[[bytes], np.ndarray]

JSON = {"Content-Type": "application/json"}
OCTETS = {"Content-Type": "application/octet-stream"}
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Dialect:
    """How to talk to a server.

    Attributes:
        encode: one row → body.
        decode: reply body → its 10 scores, or the row itself where the server echoes.
        json_nbytes: for the binary tensor extension: length of the JSON in front of a body.
    """

    encode: Encode
    decode: Decode
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    json_nbytes: Callable[[bytes], int] | None = None
    echoes: bool = False

    def headers_of(self, body: bytes) -> dict[str, str]:
        """All headers that `body` needs, besides its length."""
        if self.json_nbytes is None:
            return self.headers
        return {**self.headers, HEADER_LENGTH: str(self.json_nbytes(body))}


def _dumps(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _floats(values: object) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1)


def _encode_protocol(row: np.ndarray) -> bytes:
    return _dumps({"inputs": [_tensor(row) | {"data": row.reshape(-1).tolist()}]})


def _encode_protocol_binary(row: np.ndarray) -> bytes:
    tensor = _tensor(row) | {"parameters": {"binary_data_size": row.nbytes}}
    return _dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}) + row.tobytes()


def _tensor(row: np.ndarray) -> dict[str, object]:
    return {"name": "x", "shape": [1, *row.shape], "datatype": "FP32"}


def _json_nbytes(body: bytes) -> int:
    """Where the JSON ends: it is built here without braces in strings, and raw floats follow."""
    return json.JSONDecoder().raw_decode(body.decode("latin-1"))[1]


def _decode_protocol_binary(body: bytes) -> np.ndarray:
    """The scores are the only output, so they are the end of the body."""
    content, _ = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    size = content["outputs"][0]["parameters"]["binary_data_size"]
    return np.frombuffer(body[-size:], "<f4")


# {"inputs": row} → {"outputs": scores}: the servers written by hand.
ROW = Dialect(lambda row: _dumps({"inputs": row.tolist()}), lambda body: _floats(json.loads(body)["outputs"]))
# {"inputs": [row]} → [scores]: a batch of one.
ROWS = Dialect(lambda row: _dumps({"inputs": [row.tolist()]}), lambda body: _floats(json.loads(body)))
# {"instances": [row]} → {"predictions": [scores]}: the v1 protocol of KServe and TensorFlow Serving.
INSTANCES = Dialect(
    lambda row: _dumps({"instances": [row.tolist()]}), lambda body: _floats(json.loads(body)["predictions"])
)
RAW = Dialect(lambda row: row.tobytes(), lambda body: np.frombuffer(body, "<f4"), headers=OCTETS)
# nomadserve's plain JSON.
PLAIN = Dialect(
    lambda row: _dumps({"inputs": {"x": [row.tolist()]}}), lambda body: _floats(json.loads(body)["outputs"]["y"])
)
PROTOCOL = Dialect(_encode_protocol, lambda body: _floats(json.loads(body)["outputs"][0]["data"]))
PROTOCOL_BINARY = Dialect(_encode_protocol_binary, _decode_protocol_binary, headers=OCTETS, json_nbytes=_json_nbytes)
ECHO = Dialect(
    lambda row: _dumps({"inputs": {"x": [row.tolist()]}}),
    lambda body: _floats(json.loads(body)["inputs"]["x"]),
    echoes=True,
)
