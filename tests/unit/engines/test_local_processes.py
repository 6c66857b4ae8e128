import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nomadserve.engines.local import down, processes
from nomadserve.engines.local.record import MARK, Home
from nomadserve.errors import NomadserveError
from tests.unit.engines.conftest import Talk


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    home = Home("demo")
    home.folder.mkdir(parents=True)
    yield home
    processes.end(processes.members(home), grace_s=0)
    for process in list(processes._started.values()):
        process.wait()
    processes._started.clear()


def start(home: Home, script: str) -> psutil.Process:
    """A shell that is a member of the cluster, ready when its log says so."""
    processes.start(home, "shell", ["/bin/sh", "-c", f"{script}"])
    log = processes.log_of(home, "shell")
    until = time.monotonic() + 60
    while "ready" not in log.read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    return psutil.Process(next(reversed(processes._started.values())).pid)


def test_started_process_carries_the_mark_in_a_session_of_its_own(home: Home) -> None:
    process = start(home, "echo ready; exec sleep 600")

    assert process.environ()[MARK] == str(home.folder)
    assert os.getsid(process.pid) == process.pid
    assert processes.members(home) == [process]


def test_environment_leads_to_our_programs_and_to_no_other_cluster(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOMAD_TOKEN", "CONSUL_HTTP_ADDR", "NOMADSERVE_GATEWAY"):
        monkeypatch.setenv(name, "elsewhere")

    environment = processes.environment(home)

    assert "elsewhere" not in environment.values()
    first, second, *_ = environment["PATH"].split(os.pathsep)
    assert (first, second) == (str(Path(sys.executable).parent), str(home.programs))


def test_child_that_cleaned_its_environment_and_moved_away_is_found(home: Home) -> None:
    parent = start(home, "cd /; env -i sleep 601 & echo ready; wait")

    found = processes.members(home)

    assert parent in found
    assert len(found) == 2


def test_process_inside_the_folder_is_found_without_mark(home: Home) -> None:
    stranger = subprocess.Popen(["sleep", "600"], cwd=home.folder)
    try:
        assert [process.pid for process in processes.members(home)] == [stranger.pid]
    finally:
        stranger.kill()
        stranger.wait()


def test_caller_inside_a_cluster_is_spared_and_what_it_started_elsewhere(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = subprocess.Popen(["sleep", "604"])
    monkeypatch.chdir(home.folder)
    try:
        assert processes.members(home) == []
    finally:
        elsewhere.kill()
        elsewhere.wait()


def test_process_that_ignores_the_polite_signal_is_killed(home: Home) -> None:
    start(home, "trap '' TERM; echo ready; while :; do sleep 600; done")

    processes.end(processes.members(home), grace_s=0.3)

    assert processes.members(home) == []


def test_process_that_obeys_has_time_to_finish(home: Home, tmp_path: Path) -> None:
    start(home, f"trap 'echo done > {tmp_path}/done; exit' TERM; echo ready; while :; do sleep 0.1; done")

    processes.end(processes.members(home), grace_s=60)

    assert (tmp_path / "done").read_text() == "done\n"


def test_agent_that_ended_is_reported_with_the_end_of_its_log(home: Home) -> None:
    home.logs.mkdir()
    processes.log_of(home, "consul").write_text("".join(f"line {i}\n" for i in range(100)))

    with pytest.raises(NomadserveError) as raised:
        processes.check_alive(home, "consul", home.consul_config)

    assert raised.value.message.startswith("`consul` ended; the last lines of its log:\n  line 85\n")
    assert str(processes.log_of(home, "consul")) in raised.value.hint


def test_down_ends_processes_of_a_cluster_without_record_or_folder(home: Home, talk: Talk) -> None:
    process = start(home, "cd /; echo ready; exec sleep 600")
    (home.logs / "shell.log").unlink()
    home.logs.rmdir()
    home.folder.rmdir()

    assert down.bring_down("demo", talk)

    assert processes.members(home) == []
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert not down.bring_down("demo", talk)


def test_mounts_below_are_listed_innermost_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "36 35 98:0 / {} rw,noatime - tmpfs tmpfs rw\n"
    listed = "".join(line.format(path) for path in ("/s/a", "/s/a/b\\040c", "/sa", "/", "/s"))
    monkeypatch.setattr(Path, "read_text", lambda path: listed)

    assert down.mounts_below(Path("/s")) == [Path("/s/a/b c"), Path("/s/a"), Path("/s")]


def test_an_agent_that_was_just_started_is_alive_before_its_arguments_are_seen(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes.start(home, "consul", ["/bin/sleep", "60"])
    monkeypatch.setattr(processes, "find_agent", lambda home, config: None)
    processes.check_alive(home, "consul", home.consul_config)
