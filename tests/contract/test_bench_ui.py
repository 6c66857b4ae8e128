"""`bench --ui`: a real Locust, on the real runtime, ended in every way that a terminal knows."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.contract.serve_process import Server, serving
from tests.contract.test_bench import fake
from tests.signals import signals_heard

NOMADSERVE = Path(sys.executable).parent / "nomadserve"
LOCUST = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nomadserve" / "locust" / "bin"
PATIENCE_S = 60.0

pytestmark = pytest.mark.skipif(
    not (LOCUST / "locust").exists(), reason="Locust is not there: `scripts/locust` installs it"
)


@dataclass(frozen=True)
class Page:
    """A running `bench --ui`."""

    process: "subprocess.Popen[str]"
    url: str
    family: list[psutil.Process]

    def totals(self) -> dict[str, Any]:
        rows = requests.get(f"{self.url}/stats/requests", timeout=10).json()["stats"]
        found: dict[str, Any] = next(row for row in rows if row["name"] == "Aggregated")
        return found

    def swarm(self, *, users: int, requests_per_second: float) -> None:
        form = {"user_count": users, "spawn_rate": users, "requests_per_second": requests_per_second}
        reply = requests.post(f"{self.url}/swarm", data=form, timeout=10).json()
        assert reply["success"], reply

    def ended(self) -> bool:
        return not psutil.wait_procs(self.family, timeout=PATIENCE_S)[1]


def until(claim: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


@contextmanager
def page(folder: Path, *arguments: str) -> Iterator[Page]:
    """Start the command and wait for its page; whatever happens, nothing of it stays."""
    environment = {**os.environ, "PATH": f"{LOCUST}:{os.environ['PATH']}", "LOCUST_HEADLESS": "true"}
    with signals_heard():
        process = subprocess.Popen(
            [NOMADSERVE, "bench", *arguments, "--ui"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
        )
    assert process.stderr is not None
    family: list[psutil.Process] = []
    try:
        said = ""
        while not (found := re.search(r"Locust's page is at (http://127\.0\.0\.1:\d+)", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        yield Page(process, found[1], family)
    finally:
        for each in family or [psutil.Process(process.pid)]:
            if each.is_running():
                each.kill()
        process.wait(PATIENCE_S)
        process.stderr.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    with serving(folder, str(fake(folder, delay_ms=5)), "--engine", "fake") as running:
        yield running


def test_a_swarm_from_the_page_is_answered_at_the_pace_of_its_users(tmp_path: Path, server: Server) -> None:
    (tmp_path / "body.json").write_text('{"inputs": {"x": [[1, 2, 3, 4], [5, 6, 7, 8]]}}')
    answered_before = server.metric('nomadserve_requests_total{model="slow",outcome="ok"}')
    rows_before = server.metric('nomadserve_rows_total{model="slow"}')
    with page(tmp_path, f"http://127.0.0.1:{server.port}", "--data", "@body.json", "--start", "7") as shown:
        assert '"num_users": 7' in requests.get(shown.url, timeout=10).text
        shown.swarm(users=5, requests_per_second=4)
        until(lambda: shown.totals()["num_requests"] >= 60)
        # By Locust's own account, and whatever the machine does: users who only waited for their replies, of 5 ms each,
        # could send more; those who keep their pace can't.
        assert shown.totals()["total_rps"] < 30
        shown.process.send_signal(signal.SIGINT)
        said = shown.process.communicate(timeout=PATIENCE_S)[1]
        assert shown.ended()
    assert shown.process.returncode == 0
    ended = re.search(r"Locust has ended: (\d+) requests, 0 failed or refused", said)
    assert ended is not None, said
    until(lambda: server.metric('nomadserve_in_flight{model="slow"}') == 0)
    answered = server.metric('nomadserve_requests_total{model="slow",outcome="ok"}') - answered_before
    rows = server.metric('nomadserve_rows_total{model="slow"}') - rows_before
    # Those that went out one by one before the page, those that Locust counted, and what was under way at its end.
    assert answered >= 8 + int(ended[1]) >= 68
    assert rows == 2 * answered


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_what_was_started_for_it_ends_with_it(tmp_path: Path, number: signal.Signals) -> None:
    with page(tmp_path, str(fake(tmp_path, delay_ms=5)), "--engine", "fake") as shown:
        assert len(shown.family) >= 3  # the command, the replica, Locust
        shown.swarm(users=20, requests_per_second=5)
        until(lambda: shown.totals()["num_requests"] >= 20)
        shown.process.send_signal(number)
        assert "0 failed or refused" in shown.process.communicate(timeout=PATIENCE_S)[1]
        assert shown.process.returncode == 0
        assert shown.ended()


def test_locust_does_not_outlive_a_command_that_was_killed(tmp_path: Path, server: Server) -> None:
    with page(tmp_path, f"http://127.0.0.1:{server.port}") as shown:
        shown.process.kill()
        assert shown.ended()


def test_a_full_queue_is_told_from_other_failures(tmp_path: Path) -> None:
    options = ["--engine", "fake", "--max-batch", "1", "--queue-max", "1"]
    with page(tmp_path, str(fake(tmp_path, delay_ms=200)), *options) as shown:
        shown.swarm(users=20, requests_per_second=5)
        until(lambda: shown.totals()["num_failures"] >= 20)
        errors = requests.get(f"{shown.url}/stats/requests", timeout=10).json()["errors"]
    assert {error["error"] for error in errors} == {"CatchResponseError('503: refused')"}


def test_the_page_listens_on_loopback_only(tmp_path: Path, server: Server) -> None:
    with page(tmp_path, f"http://127.0.0.1:{server.port}") as shown:
        listening = {
            connection.laddr.ip
            for process in shown.family
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
    assert listening == {"127.0.0.1"}
