import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nomadserve.engines.catalogue import NOMAD
from nomadserve.engines.find import find
from nomadserve.engines.install import ensure
from nomadserve.engines.progress import Progress
from nomadserve.engines.sources import Order, Refused, Unavailable
from nomadserve.errors import NomadserveError
from tests.unit.engines.conftest import Talk, Vendor, script

NOMADSERVE = Path(sys.executable).parent / "nomadserve"
OnPath = Callable[[str, str], Path]

pytestmark = pytest.mark.usefixtures("on_path")


class Ready:
    """A source that has it."""

    def __init__(self, prints: str = "Nomad v1.11.1") -> None:
        self.prints = prints

    def bring(self, order: Order, progress: Progress) -> str:
        (order.folder / order.program).write_text(script(self.prints))
        return "a test"


class Closed:
    """A source that can't be had."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def bring(self, order: Order, progress: Progress) -> str:
        (order.folder / "half").write_text("unfinished")
        raise Unavailable(self.reason)


def install_nomad() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [NOMADSERVE, "engines", "install", "nomad"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def visible(cache: Path) -> list[str]:
    """What is installed, as `NAME/VERSION`."""
    return sorted(str(path.relative_to(cache)) for path in cache.glob("[!.]*/*"))


def test_vendors_archive_is_checked_installed_and_said(cache: Path, vendor: Vendor, talk: Talk) -> None:
    found = ensure([NOMAD], talk)["nomad"]

    assert found.path == cache / "nomad" / "1.11.1" / "nomad"
    assert found.origin == f"vendor's archive {vendor.archive_name}"
    assert sorted(path.name for path in found.path.parent.iterdir()) == ["LICENSE.txt", "nomad", "origin"]
    assert "  licence of nomad: Business Source License 1.1" in "\n".join(talk.said)
    assert any(text.startswith(f"downloading {vendor.archive_name}") for text in talk.moved)


def test_second_run_asks_nobody_and_says_what_is_there(cache: Path, vendor: Vendor) -> None:
    first = install_nomad()
    first.communicate()
    assert first.returncode == 0
    asked = len(vendor.requests)

    again = install_nomad()
    _, said = again.communicate()

    assert again.returncode == 0
    assert said == f"nomad 1.11.1 is there already: {cache / 'nomad' / '1.11.1' / 'nomad'}\n"
    assert len(vendor.requests) == asked


def test_install_killed_half_way_leaves_no_engine_and_the_next_run_succeeds(cache: Path, vendor: Vendor) -> None:
    vendor.hold_archive.clear()
    killed = install_nomad()
    assert vendor.half_sent.wait(timeout=60)

    killed.send_signal(signal.SIGKILL)
    killed.communicate()

    assert visible(cache) == []
    assert find(NOMAD) is None
    left = list((cache / ".staging").iterdir())
    assert len(left) == 1
    vendor.hold_archive.set()
    again = install_nomad()
    again.communicate()
    assert again.returncode == 0
    assert visible(cache) == ["nomad/1.11.1"]
    assert list((cache / ".staging").iterdir()) == []


def test_wrong_hash_is_refused_and_nothing_else_is_tried(cache: Path, vendor: Vendor) -> None:
    vendor.sums = f"{'a' * 64}  {vendor.archive_name}\n"

    refused = install_nomad()
    _, said = refused.communicate()

    assert refused.returncode == 1
    assert f"error: {vendor.url}/nomad/1.11.1/{vendor.archive_name} is not what its publisher announced" in said
    assert f"instead of {'a' * 64}" in said
    assert "hint: nothing was installed" in said
    assert visible(cache) == []


def test_two_installers_at_once_fetch_once(cache: Path, vendor: Vendor) -> None:
    vendor.hold_archive.clear()
    first = install_nomad()
    assert vendor.half_sent.wait(timeout=60)
    second = install_nomad()
    assert second.stderr is not None
    assert second.stderr.readline() == "another installer is at work: waiting for it\n"

    vendor.hold_archive.set()
    first.communicate()
    second.communicate()

    assert (first.returncode, second.returncode) == (0, 0)
    assert sum(path.endswith(".zip") for path in vendor.requests) == 1
    assert visible(cache) == ["nomad/1.11.1"]


def test_source_that_is_unavailable_gives_way_to_the_next(cache: Path, talk: Talk) -> None:
    found = ensure([replace(NOMAD, sources=(Closed("closed today"), Ready()))], talk)["nomad"]

    assert found.origin == "a test"
    assert "  not from there: closed today" in talk.said
    assert [path.name for path in found.path.parent.iterdir() if path.name == "half"] == []


def test_engine_that_no_source_has_is_an_error_with_every_reason(cache: Path, talk: Talk) -> None:
    with pytest.raises(NomadserveError) as raised:
        ensure([replace(NOMAD, sources=(Closed("closed today"), Closed("no compiler")))], talk)

    assert raised.value.message == "`nomad` can't be had from anywhere:\n  closed today\n  no compiler"
    assert raised.value.hint == "put `nomad` 1.11.1 or newer (below 2.0.0) on PATH, then run this again"
    assert visible(cache) == []


@pytest.mark.parametrize("prints", ["Nomad v1.4.0", "no version at all"])
def test_program_of_another_version_is_refused(cache: Path, talk: Talk, prints: str) -> None:
    with pytest.raises(Refused):
        ensure([replace(NOMAD, sources=(Ready(prints),))], talk)

    assert visible(cache) == []


def test_broken_copy_in_the_cache_is_replaced(cache: Path, talk: Talk) -> None:
    broken = cache / "nomad" / "1.11.1" / "nomad"
    broken.parent.mkdir(parents=True)
    broken.write_text("half of a file")

    found = ensure([replace(NOMAD, sources=(Ready(),))], talk)["nomad"]

    assert found.path == broken
    assert os.access(broken, os.X_OK)
