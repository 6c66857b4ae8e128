"""Whatever is sent, the reply says what is wrong, and the next request is answered."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.bad_inputs import BAD, SUM_NBYTES_MAX
from tests.contract.serve_process import PATIENCE_S, PLAIN, Server, serving, until
from tests.unit.runtime.models import write_fake, write_sum_model

ROW = b'{"inputs": {"x": [[1, 2, 3, 4]]}}'
MIXED: list[dict[str, Any]] = [
    {"name": "flag", "datatype": "BOOL", "shape": [2]},
    {"name": "count", "datatype": "INT8", "shape": [1]},
    {"name": "half", "datatype": "FP16", "shape": [1]},
]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    folder = tmp_path_factory.mktemp("bad")
    one = str(write_sum_model(folder / "sum.onnx"))
    wide = write_fake(folder / "wide.json", inputs=[{"name": "x", "shape": [1000]}])
    mixed = write_fake(folder / "mixed.json", inputs=MIXED)
    several = [
        {"name": "mixed", "path": str(mixed), "engine": "fake", "max_batch": 4},
        {"name": "wide", "path": str(wide), "engine": "fake", "max_batch": 4},
        {"name": "sum", "path": one, "max_batch": 8},
    ]
    environ = {"NOMADSERVE_MODELS": json.dumps(several), "NOMADSERVE_VERSION": "v7"}
    with serving(folder, one, "--max-batch", "8", "--version", "v7") as a, serving(folder, **environ) as b:
        yield {"one": a, "several": b}


def test_there_are_many() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_gets_its_exact_reply(case: str, servers: dict[str, Server]) -> None:
    bad = BAD[case]
    server = servers[bad.server]
    with contextlib.closing(server.connect()) as connection:
        reply = server.ask(bad.method, bad.path, bad.body, headers=bad.headers, over=connection)
        assert (reply.status, reply.content) == (bad.status, bad.reply)
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["x-nomadserve-version"] == "v7"
        # The connection is still good for the next request.
        assert server.ask("GET", "/v2/health/live", over=connection).status == 200


def test_a_refused_coding_is_told_which_would_do(servers: dict[str, Server]) -> None:
    reply = servers["one"].ask("POST", PLAIN, ROW, headers={"content-encoding": "br"})
    assert reply.headers["accept-encoding"] == "gzip, deflate"


# -- heads that lie, and clients that dawdle: by hand, as no client library sends them ---------------------------------


def post(*headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"POST {PLAIN} HTTP/1.1", "host: x", *headers, "", ""]).encode() + body


HEX = b"%x" % len(ROW)

RAW: dict[str, tuple[bytes, int]] = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a version of HTTP that is none": (b"GET /v2 HTTP/7.9\r\nhost: x\r\n\r\n", 400),
    "a method that is none": (b"FETCH /v2 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "a length in words": (post("content-length: ten", body=ROW), 400),
    "a negative length": (post("content-length: -5", body=ROW), 400),
    "a length beyond 64 bits": (post("content-length: 99999999999999999999999", body=ROW), 400),
    "two lengths": (post("content-length: 5", f"content-length: {len(ROW)}", body=ROW), 400),
    "a length and chunks": (post("content-length: 5", "transfer-encoding: chunked", body=b"0\r\n\r\n"), 400),
    "a chunk whose size is none": (post("transfer-encoding: chunked", body=b"zz\r\n" + ROW), 400),
    "a chunk that is longer than it says": (post("transfer-encoding: chunked", body=b"3\r\n" + ROW + b"\r\n"), 400),
    "an unknown transfer encoding": (post("transfer-encoding: rot13", body=ROW), 400),
    "a header without a colon": (post("content-length 5", body=ROW), 400),
    "a head without end": (b"GET /v2 HTTP/1.1\r\n" + b"x-header: 1234567890\r\n" * 10_000, 431),
    "a length larger than any body": (post(f"content-length: {SUM_NBYTES_MAX + 1}"), 413),
    "chunks that never end": (
        post(
            "transfer-encoding: chunked",
            body=b"ffff\r\n" + b" " * 65535 + b"\r\n" + b"ffff\r\n" + b" " * 65535 + b"\r\n",
        ),
        413,
    ),
    "a length shorter than the body": (post(f"content-length: {len(ROW) - 1}", body=ROW), 400),
}


@pytest.mark.parametrize("case", RAW)
def test_what_is_no_request_is_answered_and_ends_there(case: str, servers: dict[str, Server]) -> None:
    sent, status = RAW[case]
    reply = exchange(servers["one"], sent)
    assert reply.startswith(b"HTTP/1.1 %d " % status), reply
    body = reply.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.1 ")[0]
    assert set(json.loads(body)) == {"error", "reason"}
    assert servers["one"].ask("POST", PLAIN, ROW).status == 200


def exchange(server: Server, sent: bytes) -> bytes:
    """Send, and read until one whole reply is there, or the end."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
        with contextlib.suppress(ConnectionError):  # sent away before it said all; the reply may be there
            connection.sendall(sent)
        received = b""
        while not is_whole(received):
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
        return received


def is_whole(received: bytes) -> bool:
    head, separator, body = received.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(separator and lengths) and len(body) >= int(lengths[0].partition(b":")[2])


def test_a_client_that_sends_byte_by_byte_is_answered(servers: dict[str, Server]) -> None:
    with socket.create_connection(("127.0.0.1", servers["one"].port), PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post(f"content-length: {len(ROW)}", body=ROW):
            connection.sendall(bytes([byte]))
            time.sleep(0.001)
        received = b""
        while not is_whole(received):
            received += connection.recv(65536)
    assert b'"outputs":{"y":[[10.0,11.0]]}' in received


def test_slow_clients_keep_nobody_waiting_and_leave_nothing_behind(servers: dict[str, Server]) -> None:
    server = servers["one"]
    abandoned = 'nomadserve_requests_total{model="sum",outcome="abandoned"}'
    before = server.metric(abandoned)
    slow = [socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) for _ in range(50)]
    for connection in slow:
        connection.sendall(post(f"content-length: {len(ROW)}", body=ROW[:-5]))
    assert server.ask("POST", PLAIN, ROW).status == 200
    assert server.metric('nomadserve_queued_rows{model="sum"}') == 0
    for connection in slow:
        connection.close()
    until(lambda: server.metric(abandoned) == before + len(slow))
    assert server.metric('nomadserve_in_flight{model="sum"}') == 0


def test_a_client_that_reads_nothing_keeps_nobody_waiting(servers: dict[str, Server]) -> None:
    server = servers["one"]
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as deaf:
        deaf.setblocking(False)
        many = post(f"content-length: {len(ROW)}", body=ROW) * 2000
        with contextlib.suppress(BlockingIOError):
            deaf.send(many)
        assert server.ask("POST", PLAIN, ROW).status == 200
    until(lambda: server.metric('nomadserve_in_flight{model="sum"}') == 0)


def test_the_servers_answer_well_after_all_that(servers: dict[str, Server]) -> None:
    for server in servers.values():
        assert server.ask("GET", "/v2/health/ready").status == 200
        assert server.ask("POST", PLAIN, json.loads(ROW) | {"model": "sum"}).status == 200
        assert "Traceback" not in server.log.read_text()
