"""An environment of its own for each peer, in the user's cache folder, made on demand."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.catalogue import Peer


class CannotInstall(Exception):
    """pip could not bring a peer; the message says why."""


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/nomadserve/benchmarks`."""
    given = Path(os.environ.get("XDG_CACHE_HOME") or "")
    base = given if given.is_absolute() else Path.home() / ".cache"
    return base / "nomadserve" / "benchmarks"


def programs_of(peer: Peer) -> Path:
    """The folder of the peer's programs, `python` among them; installs what is missing.

    Raises:
        CannotInstall: with the last line that venv or pip said.
    """
    if not peer.requirements:
        return Path(sys.executable).parent
    folder = cache_folder() / (peer.environment or peer.name)
    stamp, wanted = folder / "installed", "\n".join(peer.requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {', '.join(peer.requirements)} …", file=sys.stderr, flush=True)
        interpreter = peer.interpreter if Path(peer.interpreter).is_file() else sys.executable
        _run(interpreter, "-m", "venv", "--clear", folder)
        install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(folder / "bin" / "python", *install, *peer.requirements)
        stamp.write_text(wanted)
    return folder / "bin"


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotInstall((done.stderr.strip().splitlines() or ["it failed without a word"])[-1])
