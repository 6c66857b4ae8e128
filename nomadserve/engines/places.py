"""Where things of this user lie: engines in the cache folder, clusters in the state folder (XDG base directories)."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder of installed engines: `$XDG_CACHE_HOME/nomadserve/engines`."""
    return _base("XDG_CACHE_HOME", ".cache") / "nomadserve" / "engines"


def clusters_folder() -> Path:
    """The folder of local clusters, one below it each: `$XDG_STATE_HOME/nomadserve/clusters`."""
    return _base("XDG_STATE_HOME", ".local/state") / "nomadserve" / "clusters"


def _base(variable: str, default: str) -> Path:
    """A base folder; the standard says that a relative path in the variable is to be ignored."""
    given = Path(os.environ.get(variable) or "")
    return (given if given.is_absolute() else Path.home() / default).resolve()
