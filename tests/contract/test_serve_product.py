"""`nomadserve serve` alone: what it prints works as it stands, and it logs and packs as it is told to."""

import gzip
import json
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from tests.contract.serve_process import PLAIN, Server, serving, until
from tests.unit.runtime.models import write_fake, write_sum_model

ROW = {"inputs": {"x": [[1, 2, 3, 4]]}}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def offered(server: Server) -> str:
    line = next(line for line in server.log.read_text().splitlines() if " try: " in line)
    return line.partition(" try: ")[2]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("models", ["small", "several", "with a quote", "large"])
def test_the_command_that_it_prints_works_when_pasted(models: str, tmp_path: Path) -> None:
    name = "it's" if models == "with a quote" else "x"
    size = 3000 if models == "large" else 4
    model = str(write_fake(tmp_path / "m.json", inputs=[{"name": name, "shape": [size]}]))
    entries = [{"name": entry, "path": model, "engine": "fake"} for entry in "ab"[: 2 if models == "several" else 1]]
    with serving(tmp_path, NOMADSERVE_MODELS=json.dumps(entries), NOMADSERVE_HOST="0.0.0.0") as server:
        pasted = subprocess.run(offered(server), shell=True, capture_output=True, timeout=30, cwd=tmp_path)
        assert pasted.returncode == 0, pasted.stderr
        if models == "large":
            assert json.loads((tmp_path / "reply.bin").read_bytes()[:-4])["outputs"][0]["shape"] == [1, 1]
        else:
            assert json.loads(pasted.stdout)["outputs"] == {"y": [[0.0]]}


def test_it_prints_the_calibration_table(tmp_path: Path) -> None:
    model = str(write_sum_model(tmp_path / "sum.onnx"))
    with serving(tmp_path, model, "--max-batch", "6") as server:
        lines = [line for line in server.log.read_text().splitlines() if ": batch of " in line]
        assert [line.partition("batch of ")[2].partition(":")[0] for line in lines] == ["1", "2", "4", "6"]
        assert all(line.endswith(" rows/s") and " ms, " in line for line in lines)


def test_requests_leave_no_line_unless_asked_for(tmp_path: Path) -> None:
    model = str(write_sum_model(tmp_path / "sum.onnx"))
    with serving(tmp_path, model) as server:
        before = server.log.read_text()
        for body in (ROW, {}, ROW):
            server.ask("POST", PLAIN, body)
        assert server.log.read_text() == before


def test_the_access_log_has_a_line_for_each_with_its_id_and_trace(tmp_path: Path) -> None:
    model, log = str(write_sum_model(tmp_path / "sum.onnx")), tmp_path / "serve.log"
    options = ("--log-format", "json", "--log-file", str(log), "--access-log")
    with serving(tmp_path, model, *options) as server:
        reply = server.ask("POST", PLAIN, ROW | {"id": "mine"}, headers={"traceparent": TRACE})
        assert reply.headers["traceparent"] == TRACE
        unnamed = server.ask("POST", PLAIN, ROW).content["id"]
        bad = server.ask("POST", PLAIN, {}, headers={"traceparent": TRACE})
        assert bad.headers["traceparent"] == TRACE
        until(lambda: log.read_text().count('"nomadserve.access"') == 3)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        found = [line for line in lines if line["logger"] == "nomadserve.access"]
        assert [(line["message"], line.get("request_id"), line.get("traceparent")) for line in found] == [
            ("200 ok", "mine", TRACE),
            ("200 ok", unnamed, None),
            ("400 invalid", None, TRACE),
        ]
        assert all(line["model"] == "sum" and 0 < line["seconds"] < 60 for line in found)
        assert server.log.read_text() == ""


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_long_reply_is_packed_where_the_client_asks(coding: str, tmp_path: Path) -> None:
    model = str(write_fake(tmp_path / "m.json", outputs=[{"name": "y", "shape": [1000]}]))
    with serving(tmp_path, model, "--engine", "fake") as server:
        body = {"inputs": {"x": [[1]]}}
        plain = server.ask("POST", PLAIN, body)
        packed = server.ask("POST", PLAIN, body, headers={"accept-encoding": f"br, {coding}"})
        assert "content-encoding" not in plain.headers
        assert (packed.headers["content-encoding"], packed.headers["vary"]) == (coding, "accept-encoding")
        assert len(packed.body) < len(plain.body)
        unpacked = gzip.decompress(packed.body) if coding == "gzip" else zlib.decompress(packed.body)
        assert json.loads(unpacked)["outputs"] == plain.content["outputs"]


def test_a_packed_request_is_read(tmp_path: Path) -> None:
    with serving(tmp_path, str(write_sum_model(tmp_path / "sum.onnx"))) as server:
        packed = gzip.compress(json.dumps(ROW).encode())
        reply = server.ask("POST", PLAIN, packed, headers={"content-encoding": "gzip"})
        assert reply.content["outputs"] == {"y": [[10, 11]]}
