"""`bench --ui`: Locust's web page on the same replica with the same requests, for people who like to watch.

Locust is not part of nomadserve: it runs in a process of its own (`locust_users.py`), from this Python or from PATH.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import requests

from nomadserve.errors import NomadserveError, TimedOut, WrongInput
from nomadserve.operations.bench.child import LOOK_EVERY_S, ended, free_port, tail
from nomadserve.operations.bench.events import PageEnded, PageReady, SubjectReady
from nomadserve.operations.bench.singles import Singles, ask_singly
from nomadserve.operations.bench.subject import Subject, file_served, is_file, running
from nomadserve.operations.bench.wishes import Wishes
from nomadserve.operations.events import Event

LOOPBACK = "127.0.0.1"
READY_WITHIN_S = 30.0
END_WITHIN_S = 10.0
USERS_MAX = 500  # of the form's first proposal; a person may type more
PLAN = "NOMADSERVE_LOCUST_PLAN"  # as `locust_users` reads it


class LocustFailed(NomadserveError):
    """Locust did not start, or ended by itself."""


def bench_ui(target: str, wishes: Wishes, *, port: int | None = None) -> Iterator[Event]:
    """Show Locust's page for TARGET until Ctrl-C (KeyboardInterrupt); `PageEnded` comes last.

    port: of the page, on loopback; a free one if None.

    Raises:
        WrongInput: Locust is not installed, or TARGET or the payload can't be used.
        NoReplica, ServeFailed, NameNotFound: nothing there to ask.
    """
    locust = find_locust()
    if is_file(target):
        with file_served(target, wishes.serve) as subject:
            yield from _show(locust, subject, wishes, port or free_port())
    else:
        subject = running(target, version=wishes.version, through_gateway=wishes.through_gateway)
        yield from _show(locust, subject, wishes, port or free_port())


def find_locust() -> list[str]:
    """The command that starts Locust: of this Python, else the one on PATH."""
    if importlib.util.find_spec("locust") is not None:
        return [sys.executable, "-m", "locust"]
    if program := shutil.which("locust"):
        return [program]
    raise WrongInput(
        "`--ui` shows the page of Locust, which is not installed",
        hint=f"`{sys.executable} -m pip install locust`, or have a `locust` of its own on PATH: `pipx install locust`",
    )


def _show(locust: list[str], subject: Subject, wishes: Wishes, port: int) -> Iterator[Event]:
    try:
        singles = ask_singly(subject, wishes)
    finally:
        subject.replica.close()
    yield SubjectReady(words=subject.words, single_ms=round(singles.single_s * 1e3, 3), threads=None)
    url = f"http://{LOOPBACK}:{port}"
    with tempfile.TemporaryDirectory() as folder, _running(locust, singles, Path(folder), port) as (process, log):
        _wait_ready(process, url, log)
        users = users_proposed(singles.start)
        yield PageReady(url=url, users=users)
        try:
            process.wait()
        except KeyboardInterrupt:
            yield _ended(url)
            return
        raise LocustFailed(f"Locust ended with exit code {process.returncode}:\n{tail(log)}")


def users_proposed(start: float) -> int:
    """What the form proposes: as many users, of one request a second each, as the first rate of `bench`."""
    return min(max(1, round(start)), USERS_MAX)


@contextmanager
def _running(
    locust: list[str], singles: Singles, folder: Path, port: int
) -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes]]]:
    """Locust with its page on `port`, and its log, until the block ends."""
    plan = folder / "plan.json"
    aim = singles.aim
    plan.write_text(
        json.dumps(
            {
                "parent": os.getpid(),
                "host": aim.host,
                "path": aim.path,
                "headers": aim.headers,
                "bodies": aim.bodies,
            }
        )
    )
    users = users_proposed(singles.start)
    # A session of its own: Ctrl-C reaches us alone, and we ask Locust for its totals before we end it.
    # In an empty folder, without variables for Locust: nobody's `locust.conf` has a say.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            [
                *locust,
                *("--locustfile", str(Path(__file__).with_name("locust_users.py"))),
                *("--host", f"http://{aim.address}:{aim.port}"),
                *("--web-host", LOOPBACK, "--web-port", str(port)),
                *("--users", str(users), "--spawn-rate", str(max(1, users // 10))),
            ],
            cwd=folder,
            env={**clean, PLAN: str(plan)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        with ended(process, within_s=END_WITHIN_S):
            yield process, log


def _wait_ready(process: "subprocess.Popen[bytes]", url: str, log: IO[bytes]) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise LocustFailed(f"Locust ended with exit code {process.returncode}:\n{tail(log)}")
        if _totals(url) is not None:
            return
        time.sleep(LOOK_EVERY_S)
    raise TimedOut(f"Locust's page is not there after {READY_WITHIN_S:g} s:\n{tail(log)}")


def _ended(url: str) -> PageEnded:
    totals = _totals(url) or {}
    return PageEnded(requests=totals.get("num_requests", 0), failures=totals.get("num_failures", 0))


def _totals(url: str) -> dict[str, Any] | None:
    """Locust's own sums over all requests; None while it does not answer."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            rows: list[dict[str, Any]] = session.get(f"{url}/stats/requests", timeout=2).json()["stats"]
    except requests.RequestException:
        return None
    return next((row for row in rows if row["name"] == "Aggregated"), {})
