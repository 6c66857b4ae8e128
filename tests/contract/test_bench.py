"""`bench` against the real runtime, on its fake engine: the two halves agree on requests, replies and metrics."""

import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import psutil
import pytest

from nomadserve.operations.bench.child import serving
from nomadserve.operations.bench.payload import from_metadata
from nomadserve.operations.bench.replica import Replica
from nomadserve.operations.load import Aim, Load, LoadProcess, Outcome
from tests.signals import signals_heard

NOMADSERVE = Path(sys.executable).parent / "nomadserve"


def fake(folder: Path, *, delay_ms: int) -> Path:
    """A model file of the fake engine."""
    file = folder / "slow.json"
    tensor = {"name": "x", "shape": [4]}
    file.write_text(json.dumps({"inputs": [tensor], "outputs": [{**tensor, "name": "y"}], "delay_ms": delay_ms}))
    return file


def nomadserve(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [NOMADSERVE, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("with_data", [False, True], ids=["made up", "real"])
def test_a_model_file_is_served_measured_and_reported(tmp_path: Path, with_data: bool) -> None:
    # Limits that no machine breaks: what is tested is that every part does its part.
    flags = ["--engine", "fake", "--max-batch", "8", "--step", "1s", "--p99", "20s", "--errors", "90%"]
    if with_data:
        (tmp_path / "body.json").write_text('{"inputs": {"x": [[1, 2, 3, 4], [5, 6, 7, 8]]}}')
        flags += ["--data", "@body.json"]
    file = fake(tmp_path, delay_ms=5)
    done = nomadserve(tmp_path, "bench", str(file), *flags, "--start", "60", "--rate-max", "120", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    run = report["runs"][0]
    assert [step["outcome"]["rate"] for step in run["steps"]] == [60, 120]
    assert all(step["outcome"]["ok"] >= 100 for step in run["steps"])
    assert all(step["batch_rows"] >= 1 and step["cpu_cores"] > 0 for step in run["steps"])
    assert (report["model"], report["rows"], run["knee"]) == ("slow", 2 if with_data else 1, 120)
    assert report["proposal"]["requests_per_second"] == 90
    assert "the knee lies above" in report["doubts"][0]
    page = (tmp_path / "bench.html").read_text()
    assert page.count("<figure>") == 4
    for drawing in page.split("<svg ")[1:]:
        ElementTree.fromstring("<svg " + drawing[: drawing.index("</svg>")] + "</svg>")


def test_a_running_server_is_measured_where_it_is(tmp_path: Path) -> None:
    with serving(fake(tmp_path, delay_ms=1), {"engine": "fake"}) as (port, _):
        flags = ["--step", "1s", "--p99", "20s", "--start", "100", "--rate-max", "100", "--no-report"]
        done = nomadserve(tmp_path, "bench", f"http://127.0.0.1:{port}", *flags)
        refused = nomadserve(tmp_path, "bench", f"http://127.0.0.1:{port}", "--threads", "2", "--no-report")
    assert done.returncode == 0, done.stderr
    assert "the knee: 100 requests/s" in done.stdout
    assert not (tmp_path / "bench.html").exists()
    assert refused.returncode == 2
    assert "only a model file" in refused.stderr


def test_a_full_queue_is_told_from_an_answer(tmp_path: Path) -> None:
    options = {"engine": "fake", "max-batch": 1, "queue-max": 1}
    with serving(fake(tmp_path, delay_ms=200), options) as (port, _):
        replica = Replica("127.0.0.1", port)
        payload = from_metadata(replica.metadata(replica.models()[0]), rows=1)
        replica.close()
        aim = Aim(address="127.0.0.1", port=port, host="here", path=payload.path, bodies=payload.bodies)
        with LoadProcess(aim) as load_process:
            *_, outcome = load_process.run(Load(rate=100, seconds=0.5))
    assert isinstance(outcome, Outcome)
    assert outcome.sent == 50
    assert outcome.refused > 0
    assert outcome.ok > 0
    assert outcome.failures == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_the_replica_and_the_load_end_with_a_search_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    file = fake(tmp_path, delay_ms=5)
    command = [NOMADSERVE, "bench", str(file), "--engine", "fake", "--step", "60s", "--no-report"]
    with signals_heard():
        searching = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    family = [psutil.Process(searching.pid)]
    try:
        assert searching.stderr is not None
        assert "one request takes" in searching.stderr.readline()
        give_up_at = time.monotonic() + 60
        while len(family) < 3:  # the command, the replica, the load
            family[1:] = psutil.Process(searching.pid).children(recursive=True)
            assert time.monotonic() < give_up_at
            time.sleep(0.1)
        searching.send_signal(number)
        assert "interrupted" in searching.communicate(timeout=60)[1]
        assert searching.returncode == 130
        assert not psutil.wait_procs(family, timeout=60)[1]
    finally:
        for process in family:
            if process.is_running():
                process.kill()
        searching.communicate()


def test_a_payload_that_the_model_does_not_take_is_refused_before_any_load(tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text('{"inputs": {"wrong": [[1]]}}')
    file = fake(tmp_path, delay_ms=1)
    done = nomadserve(tmp_path, "bench", str(file), "--engine", "fake", "--data", "@body.json")
    assert done.returncode == 2
    assert "answers 400 to the first request" in done.stderr
    assert "hint: give bodies that the model takes" in done.stderr


def test_a_model_that_does_not_load_says_why(tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text("{}")
    done = nomadserve(tmp_path, "bench", str(file), "--engine", "fake")
    assert done.returncode == 1
    assert "does not describe a fake model" in done.stderr
