import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nomadserve_runtime.engines.trt import bindings
from tests.tensorrt_rtx import FOLDER


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("NOMADSERVE_ENGINE_CACHE", str(folder))
    return folder


@pytest.fixture
def rtx(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bindings.Bindings]:
    """The real TensorRT-RTX, without a GPU."""
    assert FOLDER is not None
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER)])
    monkeypatch.setenv("NOMADSERVE_TENSORRT", "tensorrt_rtx")
    bindings._find.cache_clear()
    yield bindings.find_bindings()
    bindings._find.cache_clear()
