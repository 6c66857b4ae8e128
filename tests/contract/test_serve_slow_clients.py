"""`nomadserve serve` and clients that send more slowly than anybody should: 408, and the connection is closed."""

import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.serve_process import PATIENCE_S, PLAIN, Server, serving, until
from tests.unit.runtime.models import write_fake

LAUNCHER = Path(__file__).with_name("serve_impatiently.py")
ELEMENTS = 40_000  # 320 KB of JSON, of which the largest part goes past the parser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("slow")
    model = write_fake(folder / "m.json", inputs=[{"name": "x", "shape": [ELEMENTS]}])
    with serving(folder, str(model), "--engine", "fake", command=(sys.executable, LAUNCHER, "serve")) as running:
        yield running


def heard(server: Server, *pieces: bytes) -> bytes:
    """All that the server says to a client that sends these pieces and then nothing, until it closes."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as client:
        for piece in pieces:
            client.sendall(piece)
        said = b""
        while piece := client.recv(65536):
            said += piece
        return said


def head(nbytes: int) -> bytes:
    return f"POST {PLAIN} HTTP/1.1\r\nhost: x\r\ncontent-length: {nbytes}\r\n\r\n".encode()


def test_a_head_that_does_not_end_is_answered_with_408(server: Server) -> None:
    said = heard(server, b"POST /v1/inference HTTP/1.1\r\nhost:")
    assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert json.loads(said.partition(b"\r\n\r\n")[2]) == {"error": "request timeout", "reason": "too_slow"}


@pytest.mark.parametrize(("nbytes", "sent"), [(1000, 10), (300_000, 10), (300_000, 200_000)])
def test_a_body_that_stops_half_way_is_answered_with_408(server: Server, nbytes: int, sent: int) -> None:
    before = server.metric('nomadserve_requests_total{model="m",outcome="invalid"}')
    said = heard(server, head(nbytes), b" " * sent)
    assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    fields, _, content = said.partition(b"\r\n\r\n")
    timing = re.search(rb"server-timing: total;dur=(\S+)", fields)
    assert timing is not None
    assert float(timing[1]) >= 2000
    assert json.loads(content) == {"error": "the body did not arrive within 2 s", "reason": "too_slow"}
    assert server.metric('nomadserve_requests_total{model="m",outcome="invalid"}') == before + 1


def test_nothing_is_left_of_them_and_others_are_served(server: Server) -> None:
    body = json.dumps({"inputs": {"x": [[0.5] * ELEMENTS]}}).encode()
    assert server.ask("POST", PLAIN, body).status == 200
    until(lambda: server.metric('nomadserve_in_flight{model="m"}') == 0)
