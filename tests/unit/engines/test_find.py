from collections.abc import Callable
from pathlib import Path

import pytest

from nomadserve.engines.catalogue import ENGINES, NOMAD
from nomadserve.engines.find import find
from nomadserve.engines.versions import Version
from tests.unit.engines.conftest import script

OnPath = Callable[[str, str], Path]


def put_in_cache(cache: Path, version: str) -> Path:
    program = cache / "nomad" / version / "nomad"
    program.parent.mkdir(parents=True)
    program.write_text(script(f"Nomad v{version}"))
    program.chmod(0o755)
    return program


def test_fitting_engine_on_path_comes_before_the_cache(cache: Path, on_path: OnPath) -> None:
    put_in_cache(cache, "1.11.1")
    program = on_path("nomad", script("Nomad v1.12.0+ent"))

    found = find(NOMAD)

    assert found is not None
    assert (found.path, found.version, found.origin) == (program, Version(1, 12, 0), "PATH")


def test_the_cache_stays_the_cache_when_dev_env_put_it_on_path(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = put_in_cache(cache, "1.11.1")
    monkeypatch.setenv("PATH", f"{program.parent}:/bin")

    found = find(NOMAD)

    assert found is not None
    assert (found.path, found.origin) == (program, "unknown")


@pytest.mark.parametrize("prints", ["Nomad v1.9.3", "Nomad v2.0.0", "what?"])
def test_engine_on_path_that_does_not_fit_is_passed_over(cache: Path, on_path: OnPath, prints: str) -> None:
    on_path("nomad", script(prints))
    cached = put_in_cache(cache, "1.11.1")

    found = find(NOMAD)

    assert found is not None
    assert found.path == cached


def test_fitting_engine_later_on_path_is_found(
    cache: Path, on_path: OnPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = on_path("nomad", script("Nomad v1.9.3"))
    newer = tmp_path / "nomad"
    newer.write_text(script("Nomad v1.11.2"))
    newer.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{tmp_path}")

    found = find(NOMAD)

    assert found is not None
    assert found.path == newer


def test_newest_fitting_copy_of_the_cache_is_taken(cache: Path, on_path: OnPath) -> None:
    for version in ("1.11.1", "1.11.10", "1.11.9", "3.0.0"):
        put_in_cache(cache, version)

    found = find(NOMAD)

    assert found is not None
    assert found.version == Version(1, 11, 10)


def test_nothing_is_found_where_nothing_is(cache: Path, on_path: OnPath) -> None:
    assert [find(engine) for engine in ENGINES.values()] == [None] * len(ENGINES)


def test_program_that_fails_when_asked_is_not_found(cache: Path, on_path: OnPath) -> None:
    on_path("nomad", "#!/bin/sh\necho 'Nomad v1.11.1'\nexit 3\n")

    assert find(NOMAD) is None
