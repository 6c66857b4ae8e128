"""TensorRT-RTX where `scripts/tensorrt-rtx` put it: the real builder and parser, which need no GPU."""

import os
import sys
from pathlib import Path

import pytest

_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
_FOUND = sorted((_CACHE / "nomadserve" / "tensorrt-rtx").glob(f"*-cp3{sys.version_info[1]}/.installed"))

FOLDER: Path | None = _FOUND[-1].parent if _FOUND else None
"""What to have on sys.path, or in PYTHONPATH."""

needs_rtx = pytest.mark.skipif(
    FOLDER is None, reason="TensorRT-RTX is not there: `scripts/tensorrt-rtx` brings it, for x86-64 with glibc 2.28"
)
