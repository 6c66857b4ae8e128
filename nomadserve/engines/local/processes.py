"""The processes of a local cluster: started detached, found again by their mark, ended without exception."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from nomadserve.engines.local.record import MARK, Home, is_inside
from nomadserve.errors import NomadserveError

LOG_LINES = 15
KILLED_WAIT_S = 10.0
# Variables of these names would turn an agent, or the tasks that inherit them, towards another cluster.
FOREIGN_PREFIXES = ("NOMAD_", "CONSUL_", "NOMADSERVE_")


def start(home: Home, name: str, command: list[str]) -> None:
    """Start an agent in a session of its own, so that neither Ctrl-C nor a closed terminal reaches it.

    Its output is appended to `logs/NAME.log`.
    """
    home.logs.mkdir(parents=True, exist_ok=True)
    with log_of(home, name).open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=home.folder,
            env=environment(home),
            start_new_session=True,
        )
    _started[log_of(home, name)] = process


# By their logs. It also keeps them from being reported as lost when this process ends.
_started: dict[Path, subprocess.Popen[bytes]] = {}


def environment(home: Home) -> dict[str, str]:
    """The environment of the agents, which raw_exec tasks inherit: ours, marked, with the programs of tasks on PATH."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN_PREFIXES)}
    path = [*([str(folder)] if (folder := own_folder()) else []), str(home.programs), kept.get("PATH", os.defpath)]
    return {**kept, "PATH": os.pathsep.join(path), MARK: str(home.folder)}


def own_folder() -> Path | None:
    """The folder of the `nomadserve` executable that runs now: jobs start `nomadserve serve` by PATH."""
    folders = (Path(sys.executable).parent, Path(sys.argv[0]).absolute().parent)
    return next((folder for folder in folders if os.access(folder / "nomadserve", os.X_OK)), None)


def log_of(home: Home, name: str) -> Path:
    """The log file of an agent."""
    return home.logs / f"{name}.log"


def find_agent(home: Home, config: Path) -> psutil.Process | None:
    """The living agent that was started with that configuration file."""
    for process in psutil.process_iter():
        try:
            if str(config) in " ".join(process.cmdline()[:4]) and _carries_mark(process, home):
                return process
        except psutil.Error:
            continue
    return None


def check_alive(home: Home, name: str, config: Path) -> None:
    """Raise, with the end of its log, where an agent is no longer there."""
    # One that was started a moment ago may not have its arguments yet, by which others are found.
    started = _started.get(log_of(home, name))
    if (started is None or started.poll() is not None) and find_agent(home, config) is None:
        lines = log_of(home, name).read_text(errors="replace").splitlines()[-LOG_LINES:]
        raise NomadserveError(
            "\n  ".join([f"`{name}` ended; the last lines of its log:", *lines]),
            hint=f"its whole log: {log_of(home, name)}; start afresh: `nomadserve dev down` and `nomadserve dev up`",
        )


def members(home: Home) -> list[psutil.Process]:
    """Every living process of the cluster: marked, or with its folder in the cluster's, and all their children.

    A task may have cleaned its environment, and one in a chroot has another root folder; whoever calls this, and
    that process's parents, are never among them, nor does anything belong to the cluster for being a child of theirs.
    """
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = [process for process in psutil.process_iter() if process.pid not in spared and _belongs(process, home)]
    ours = {process.pid: process for process in found}
    for process in found:
        ours.update({child.pid: child for child in _children(process)})
    return [process for pid, process in ours.items() if pid not in spared and _is_alive(process)]


def end(processes: Iterable[psutil.Process], *, grace_s: float) -> None:
    """Ask all of them to end, wait, then kill the rest and wait for that too."""
    asked = _signal(processes, psutil.Process.terminate)
    gone_by = time.monotonic() + grace_s
    while (alive := [process for process in asked if _is_alive(process)]) and time.monotonic() < gone_by:
        time.sleep(0.05)
    killed = _signal(alive, psutil.Process.kill)
    gone_by = time.monotonic() + KILLED_WAIT_S
    while any(_is_alive(process) for process in killed) and time.monotonic() < gone_by:
        time.sleep(0.05)


def is_support(process: psutil.Process) -> bool:
    """Whether it is a Nomad or Consul program itself, not what a job runs: these end last."""
    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    return len(command) > 1 and Path(command[0]).name in ("nomad", "consul") and command[1] in SUPPORT


SUPPORT = ("agent", "executor", "logmon", "docker_logger")


def _signal(processes: Iterable[psutil.Process], send: Callable[[psutil.Process], None]) -> list[psutil.Process]:
    reached = []
    for process in processes:
        try:
            send(process)
        except psutil.Error:
            continue
        reached.append(process)
    return reached


def _belongs(process: psutil.Process, home: Home) -> bool:
    try:
        return _carries_mark(process, home) or any(
            is_inside(Path(f"/proc/{process.pid}/{link}").readlink(), home.folder) for link in ("cwd", "root")
        )
    except (psutil.Error, OSError):
        return False


def _carries_mark(process: psutil.Process, home: Home) -> bool:
    try:
        return process.environ().get(MARK) == str(home.folder)
    except psutil.Error:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _is_alive(process: psutil.Process) -> bool:
    """A zombie holds nothing any more; whoever is its parent will collect it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
