"""Start-up as a user sees it: what is printed, and the exit code. A process that serves is in `tests/contract`."""

import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nomadserve_runtime import gpu
from nomadserve_runtime.__main__ import _sample_gpus, main
from nomadserve_runtime.config import load_config
from nomadserve_runtime.engines.fake import FakeEngine
from nomadserve_runtime.errors import EngineLost
from nomadserve_runtime.metrics import Series
from tests.unit.runtime.fake_nvml import Card, install
from tests.unit.runtime.models import write_fake


def models(path: Path, **changes: Any) -> dict[str, str]:
    return {"NOMADSERVE_MODELS": json.dumps([{"name": "m", "path": str(path), "engine": "fake"} | changes])}


def test_a_wrong_variable_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main({"NOMADSERVE_PORT": "x"}) == 2
    assert capsys.readouterr().err == (
        "error: `NOMADSERVE_MODELS` is not set: it names the models to serve\n"
        "`NOMADSERVE_PORT` is no whole number: `x`\n"
        "hint: `nomadserve serve --help` lists the options that set these variables\n"
    )


def test_a_missing_model_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.onnx"
    assert main(models(path, engine="onnxruntime")) == 2
    assert capsys.readouterr().err == f"error: there is no model file `{path}`\nhint: check the path of the model\n"


def test_a_model_with_another_checksum_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_fake(tmp_path / "m.json")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert main(models(path, checksum="sha256:" + "0" * 64)) == 2
    assert capsys.readouterr().err == (
        f"error: `{path}` is not the file that was asked for: its checksum is sha256:{found}, not sha256:{'0' * 64}\n"
        "hint: bring the file on this node up to date, or deploy the service again\n"
    )


def test_a_port_in_use_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_fake(tmp_path / "m.json")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(models(path) | {"NOMADSERVE_PORT": str(port)}) == 1
    assert capsys.readouterr().err == (
        f"error: can't listen on 127.0.0.1:{port}: Address already in use\n"
        "hint: stop what uses the port, or take another: `--port`\n"
    )


@pytest.fixture
def an_idle_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install(monkeypatch, Card("GPU-1"))
    for variable in (gpu.GIVEN, gpu.SHOWN):
        monkeypatch.delenv(variable, raising=False)
    yield


@pytest.mark.parametrize(("given", "engine", "measured"), [("", "fake", 0), ("all", "fake", 1), ("", "tensorrt", 1)])
def test_gpus_are_measured_where_the_replica_has_any(
    given: str, engine: str, measured: int, an_idle_card: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(gpu.GIVEN, given)
    series = Series()
    sampler = _sample_gpus(load_config(models(tmp_path, engine=engine)), series)
    assert len(series.gpus()) == measured
    if sampler is not None:
        sampler.close()


def test_an_engine_that_is_lost_while_it_is_tried_out_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def burn(engine: FakeEngine, rows: int) -> float:
        raise EngineLost("GPU 0 failed: it is on fire")

    monkeypatch.setattr(FakeEngine, "known_seconds", burn)
    assert main(models(write_fake(tmp_path / "m.json"))) == 1
    assert capsys.readouterr().err == "error: the engine is lost: GPU 0 failed: it is on fire\n"


SIGNAL_WHILE_THE_WAKE_UP_SOCKET_IS_FULL = """
import asyncio, contextlib, os, signal
from nomadserve_runtime.__main__ import _end_on_signals

async def told() -> bool:
    told_to_end = _end_on_signals()
    with contextlib.suppress(BlockingIOError):
        while True:
            asyncio.get_running_loop()._csock.send(b"0")
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(10):
        return await told_to_end.wait()

print(asyncio.run(told()))
"""


def test_a_signal_is_heard_when_the_loop_is_flooded_with_calls_from_threads() -> None:
    """Seen with 1,000 connections: the server's threads fill the socket by which asyncio hears of signals."""
    ended = subprocess.run(
        [sys.executable, "-c", SIGNAL_WHILE_THE_WAKE_UP_SOCKET_IS_FULL], capture_output=True, text=True, timeout=60
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("True\n", "", 0)
