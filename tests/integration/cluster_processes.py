"""The processes of a local cluster, by the mark that they carry: what tests of `dev` look at, and end."""

from collections.abc import Iterator
from pathlib import Path

import psutil


def agents_of(home: Path, config: str) -> list[psutil.Process]:
    """The agent of that file, and for an instant perhaps what it is just starting, which still looks like it."""
    return [process for process in of_home(home) if f"={home / config}" in command_of(process)]


def agents(home: Path) -> set[int]:
    """Those that `dev up` starts itself. The Autoscaler may be started anew at any time."""
    return {agents_of(home, config)[0].pid for config in ("consul.json", "nomad.json")}


def envoy_of(home: Path) -> psutil.Process | None:
    found = (process for process in of_home(home) if "envoy --config-path" in command_of(process))
    return next(found, None)


def the_envoy(home: Path) -> psutil.Process:
    envoy = envoy_of(home)
    assert envoy is not None
    return envoy


def of_home(home: Path) -> Iterator[psutil.Process]:
    """Living processes that carry the cluster's mark."""
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("NOMADSERVE_CLUSTER") == str(home):
                yield process
        except psutil.Error:
            continue


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
