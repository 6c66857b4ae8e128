"""Brings missing engines: each is prepared aside and appears in the cache in one step, complete and tried, or not."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nomadserve.engines.catalogue import Engine
from nomadserve.engines.find import Found, find, find_in_cache, version_of
from nomadserve.engines.locks import locked
from nomadserve.engines.places import cache_folder
from nomadserve.engines.platforms import need_linux
from nomadserve.engines.progress import Progress
from nomadserve.engines.sources import Order, Refused, Unavailable
from nomadserve.errors import NomadserveError


def ensure(engines: Iterable[Engine], progress: Progress) -> dict[str, Found]:
    """A copy of each engine, by name; those that are missing are installed first.

    Raises:
        NomadserveError: one can't be had from any of its sources, or a source sent something else.
    """
    need_linux()
    return {engine.name: find(engine) or _install(engine, progress) for engine in engines}


def _install(engine: Engine, progress: Progress) -> Found:
    with locked(
        cache_folder() / ".lock", when_waiting=lambda: progress.say("another installer is at work: waiting for it")
    ):
        _remove_stale()
        # The installer waited for may have brought it.
        return find_in_cache(engine) or _from_first_source(engine, progress)


def _from_first_source(engine: Engine, progress: Progress) -> Found:
    progress.say(f"installing {engine.name} {engine.version}")
    if engine.notice:
        progress.say(f"  licence of {engine.name}: {engine.notice}")
    reasons = []
    for source in engine.sources:
        with _workplace(engine) as order:
            try:
                origin = source.bring(order, progress)
                found = _publish(engine, order.folder, origin)
            except Unavailable as error:
                reasons.append(error.message)
                progress.say(f"  not from there: {error.message}")
                continue
        progress.say(f"installed {engine.name} {found.version} ({origin})")
        return found
    raise NomadserveError(
        "\n  ".join([f"`{engine.name}` can't be had from anywhere:", *reasons]),
        hint=f"put `{engine.program}` {engine.at_least} or newer (below {engine.below}) on PATH, then run this again",
    )


@contextmanager
def _workplace(engine: Engine) -> Iterator[Order]:
    """Folders on the cache's own file system, so that the last step can be a rename."""
    _staging_folder().mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f"{engine.name}-", dir=_staging_folder()))
    order = Order(program=engine.program, version=engine.version, folder=place / "folder", scratch=place / "scratch")
    order.folder.mkdir()
    order.scratch.mkdir()
    try:
        yield order
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _publish(engine: Engine, folder: Path, origin: str) -> Found:
    """Try the program, then give its folder the final name; before that nothing of it is visible."""
    program = folder / engine.program
    program.chmod(0o755)
    version = version_of(program, engine)
    if version is None or not engine.fits(version):
        raise Refused(
            f"`{engine.program}` from {origin} does not run here, or its version does not fit: {version}",
            hint=f"nothing was installed; put `{engine.program}` {engine.at_least} or newer on PATH",
        )
    (folder / "origin").write_text(origin + "\n")
    final = cache_folder() / engine.name / str(version)
    final.parent.mkdir(parents=True, exist_ok=True)
    for path in (*folder.iterdir(), folder):
        _sync(path)
    if final.exists():  # one that did not run, or it would have been found
        final.rename(folder.parent / "replaced")
    folder.rename(final)
    _sync(final.parent)
    return Found(engine, final / engine.program, version, origin)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _staging_folder() -> Path:
    return cache_folder() / ".staging"


def _remove_stale() -> None:
    """What an interrupted installer left; nobody else works there while we hold the lock."""
    shutil.rmtree(_staging_folder(), ignore_errors=True)
