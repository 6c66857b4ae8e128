"""`nomadserve serve` on a model file, as a child process, for as long as it is measured."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import requests

from nomadserve.errors import NomadserveError, TimedOut

READY_WITHIN_S = 120.0
END_WITHIN_S = 30.0
LOOK_EVERY_S = 0.05
LOG_NBYTES = 2000


class ServeFailed(NomadserveError):
    """The child ended instead of serving."""


@contextmanager
def serving(file: Path, options: Mapping[str, object]) -> Iterator[tuple[int, float]]:
    """Serve `file` on a free port of loopback; yields the port and the seconds until it was ready.

    options: of `nomadserve serve`, without their dashes; those that are None are left out.

    Raises:
        ServeFailed, TimedOut: it did not get ready.
    """
    port = free_port()
    given = [part for name, value in options.items() if value is not None for part in (f"--{name}", str(value))]
    arguments = ["serve", str(file), "--port", str(port), "--log-level", "warning", *given]
    program = "import sys; from nomadserve.cli import run; sys.exit(run(sys.argv[1:]))"
    with tempfile.TemporaryFile() as log:
        started_at = time.monotonic()
        # A session of its own: Ctrl-C reaches us alone, and the replica drains after its load has ended, not under it.
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        with ended(process, within_s=END_WITHIN_S):
            _wait_ready(process, port, log, within_s=READY_WITHIN_S)
            yield port, time.monotonic() - started_at


@contextmanager
def ended(process: "subprocess.Popen[bytes]", *, within_s: float) -> Iterator[None]:
    """End the process after the block: politely, and by force where it takes longer than `within_s` seconds."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_ready(process: "subprocess.Popen[bytes]", port: int, log: IO[bytes], *, within_s: float) -> None:
    url, until = f"http://127.0.0.1:{port}/v2/health/ready", time.monotonic() + within_s
    while time.monotonic() < until:
        if process.poll() is not None:
            raise ServeFailed(f"`nomadserve serve` ended with exit code {process.returncode}:\n{tail(log)}")
        try:
            if requests.get(url, timeout=1).status_code == requests.codes.ok:
                return
        except requests.RequestException:
            pass
        time.sleep(LOOK_EVERY_S)
    raise TimedOut(f"`nomadserve serve` is not ready after {within_s:g} s:\n{tail(log)}")


def tail(log: IO[bytes]) -> str:
    """The last of what it said."""
    size = log.seek(0, 2)
    log.seek(max(0, size - LOG_NBYTES))
    return log.read().decode(errors="replace").strip()
