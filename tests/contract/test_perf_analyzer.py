"""NVIDIA's load generator, unmodified, runs against `nomadserve serve` and understands its statistics."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.serve_process import Server, serving
from tests.unit.runtime.models import write_sum_model

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
PERF_ANALYZER = CACHE / "nomadserve" / "perf-analyzer" / "perf_analyzer"

pytestmark = pytest.mark.skipif(
    not PERF_ANALYZER.exists(), reason="perf_analyzer is not there: `scripts/perf-analyzer` installs it"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("perf")
    with serving(folder, str(write_sum_model(folder / "sum.onnx")), "--version", "v7", "--max-batch", "8") as running:
        yield running


def analyze(server: Server, *options: str) -> str:
    known = f"-m sum -u 127.0.0.1:{server.port} -i http --measurement-mode count_windows"
    short = "--measurement-request-count 100 --max-trials 3 --stability-percentage 999"
    ended = subprocess.run(
        [PERF_ANALYZER, *known.split(), *short.split(), *options], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--input-tensor-format", "json", "--output-tensor-format", "json"),
        ("-b", "4", "--concurrency-range", "4", "--async"),
        ("--request-rate-range", "200"),
    ],
    ids=["binary", "json", "batches", "open loop"],
)
def test_it_measures(options: tuple[str, ...], server: Server) -> None:
    asked_before = server.metric('nomadserve_requests_total{model="sum",outcome="ok"}')
    report = analyze(server, *options)
    assert server.metric('nomadserve_requests_total{model="sum",outcome="ok"}') > asked_before
    assert server.metric('nomadserve_requests_total{model="sum",outcome="invalid"}') == 0
    # What only the statistics of the server can tell.
    answered = re.search(r"Successful request count: (\d+)", report)
    assert answered is not None
    assert int(answered[1]) >= 100
    assert re.search(r"queue \d+ usec \+ compute input \d+ usec \+ compute infer \d+ usec", report)


def test_what_it_finds_wrong_it_says(server: Server) -> None:
    ended = subprocess.run(
        [PERF_ANALYZER, "-m", "cat", "-u", f"127.0.0.1:{server.port}", "-i", "http"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode != 0
    assert "no model `cat` is served here, but `sum`" in ended.stdout + ended.stderr
