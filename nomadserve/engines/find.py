"""Finds engines that are already on this machine: on PATH first, then in the cache."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nomadserve.engines.catalogue import Engine
from nomadserve.engines.places import cache_folder
from nomadserve.engines.versions import Version, parse_version

VERSION_TIMEOUT_S = 20.0  # a cold start of a 130 MB binary from a slow disk


@dataclass(frozen=True)
class Found:
    """A copy of an engine that runs and fits.

    Attributes:
        origin: `PATH`, or how the copy in the cache came there, as its `origin` file says.
    """

    engine: Engine
    path: Path
    version: Version
    origin: str


def find(engine: Engine) -> Found | None:
    """The copy to use, or None where there is none that fits."""
    for program in _on_path(engine.program):
        version = version_of(program, engine)
        if version is not None and engine.fits(version):
            return Found(engine, program, version, "PATH")
    return find_in_cache(engine)


def find_in_cache(engine: Engine) -> Found | None:
    """The newest copy in the cache that fits."""
    copies = [found for folder in (cache_folder() / engine.name).glob("[0-9]*") if (found := _cached(engine, folder))]
    return max(copies, key=lambda found: found.version, default=None)


def version_of(program: Path, engine: Engine) -> Version | None:
    """What the program says it is; None where it does not run or says nothing of the kind."""
    try:
        done = subprocess.run(
            [program, *engine.version_arguments], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return parse_version(done.stdout or done.stderr) if done.returncode == 0 else None


def _cached(engine: Engine, folder: Path) -> Found | None:
    program = folder / engine.program
    version = version_of(program, engine) if program.is_file() else None
    if version is None or not engine.fits(version):
        return None
    origin = folder / "origin"
    return Found(engine, program, version, origin.read_text().strip() if origin.is_file() else "unknown")


def _on_path(program: str) -> Iterator[Path]:
    """Every executable of that name on PATH, each file once; `dev env` may have put our own cache there."""
    seen: set[Path] = set()
    for folder in os.get_exec_path():
        path = Path(folder) / program
        if cache_folder() in path.parents:
            continue
        if path.is_absolute() and path.is_file() and os.access(path, os.X_OK) and path.resolve() not in seen:
            seen.add(path.resolve())
            yield path
