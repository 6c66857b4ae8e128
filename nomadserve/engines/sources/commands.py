"""Runs the programs that fetch and build: their lines are read as they come, and they never outlive the installer."""

import ctypes
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from nomadserve.engines.sources import Unavailable

LAST_LINES = 15
TICK_S = 0.5
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def run(
    command: list[str],
    *,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
    on_tick: Callable[[float], None] = lambda elapsed_s: None,
) -> list[str]:
    """Run to the end and return all lines of output and errors together.

    Args:
        command: program and arguments.
        cwd: where it runs.
        environment: all of its variables; ours where None.
        on_line: called with each line.
        on_tick: called with the seconds gone, at least twice a second, whether lines come or not.

    Raises:
        Unavailable: it is not there, or failed; with its last lines.
    """
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=_end_with_parent,
        )
    except OSError as error:
        raise Unavailable(f"`{command[0]}` can't be run: {error.strerror}") from error
    lines: list[str] = []
    with process:
        try:
            for line in _lines(process, lambda: on_tick(time.monotonic() - started)):
                lines.append(line)
                on_line(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise Unavailable("\n    ".join([f"`{' '.join(command[:3])} …` failed:", *lines[-LAST_LINES:]]))
    return lines


def _lines(process: subprocess.Popen[str], tick: Callable[[], None]) -> Iterator[str]:
    """Lines as they come; `None` in the queue is the end of them."""
    arrived: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            arrived.put(line.rstrip("\n"))
        arrived.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        tick()
        try:
            line = arrived.get(timeout=TICK_S)
        except queue.Empty:
            continue
        if line is None:
            return
        yield line


def _end_with_parent() -> None:
    """In the child: be sent SIGTERM when the installer dies, even by SIGKILL."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
