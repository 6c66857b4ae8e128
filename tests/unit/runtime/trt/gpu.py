"""A made-up GPU under the real engine, for tests."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.engine import open_engine
from nomadserve_runtime.engines.trt import bindings, cuda
from nomadserve_runtime.engines.trt.engine import TrtEngine
from tests.unit.runtime.trt.fake_cuda import FakeLibrary, Machine, fake_driver
from tests.unit.runtime.trt.fake_tensorrt_runtime import fake_tensorrt


def plug_in(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    """Have the engine find this machine in the place of a real one."""
    monkeypatch.setattr(cuda, "driver", fake_driver(machine), raising=False)
    monkeypatch.setattr(cuda, "missing", None)
    monkeypatch.setattr(cuda, "library", lambda: FakeLibrary(machine))
    module: ModuleType = fake_tensorrt(machine)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setenv(bindings.CHOICE, "tensorrt")
    bindings._find.cache_clear()


def opened(path: Path, *, max_batch: int = 8, **more: Any) -> TrtEngine:
    engine = open_engine(ModelConfig(name="m", path=str(path), engine="tensorrt", max_batch=max_batch, **more))
    assert isinstance(engine, TrtEngine)
    return engine


@contextmanager
def opening(machine: Machine, path: Path, **options: Any) -> Iterator[TrtEngine]:
    """An engine that gives everything back at the end, in the right threads."""
    engine = opened(path, **options)
    try:
        yield engine
    finally:
        engine.close()
        assert len(machine.streams) == 0, "what is left goes in a thread in which no context is current"
        assert machine.problems == []
        assert (machine.memory, machine.pinned, machine.graphs, machine.executables) == ({}, 0, {}, {})
