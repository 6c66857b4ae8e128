import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

from nomadserve_runtime.engines.trt import bindings
from nomadserve_runtime.engines.trt.bindings import find_bindings
from nomadserve_runtime.errors import CannotStart, WrongSetting


class Absent:
    """An import system in which no TensorRT is installed, whatever this machine has."""

    def find_spec(self, name: str, *_: object) -> None:
        if name in bindings.FLAVOURS:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    bindings._find.cache_clear()
    monkeypatch.delenv("NOMADSERVE_TENSORRT", raising=False)
    for flavour in bindings.FLAVOURS:
        monkeypatch.delitem(sys.modules, flavour, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    yield
    bindings._find.cache_clear()


class ILogger:
    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)


def installed(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    module = ModuleType(name)
    module.__version__ = version  # type: ignore[attr-defined]
    module.ILogger = ILogger  # type: ignore[attr-defined]
    module.BuilderFlag = SimpleNamespace(__members__={"TF32": 1})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)


def test_without_tensorrt_the_way_to_get_it_is_named() -> None:
    with pytest.raises(CannotStart, match="needs the package tensorrt or tensorrt_rtx") as caught:
        find_bindings()
    assert "nomadserve[tensorrt]" in caught.value.hint


def test_tensorrt_comes_before_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "tensorrt", "10.13.0.35")
    installed(monkeypatch, "tensorrt_rtx", "1.7.1.116")
    found = find_bindings()
    assert (found.flavour, found.is_rtx, found.title) == ("tensorrt", False, "TensorRT 10.13.0.35")


def test_the_environment_chooses_the_flavour(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "tensorrt", "10.13.0.35")
    installed(monkeypatch, "tensorrt_rtx", "1.7.1.116")
    monkeypatch.setenv("NOMADSERVE_TENSORRT", "tensorrt_rtx")
    assert find_bindings().title == "TensorRT-RTX 1.7.1.116"


def test_a_flavour_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMADSERVE_TENSORRT", "11")
    with pytest.raises(WrongSetting, match="`NOMADSERVE_TENSORRT` is `11`"):
        find_bindings()


def test_a_package_that_is_there_and_broken_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))  # as the placeholder of the public index
    with pytest.raises(CannotStart, match=r"`tensorrt` is there, but can't be imported: .*ILogger"):
        find_bindings()


def test_what_a_release_can_do_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "tensorrt", "11.4.0.106")
    found = find_bindings()
    assert found.has("BuilderFlag", "TF32")
    assert not found.has("BuilderFlag", "FP16")
    assert not found.has("CalibrationAlgoType", "MINMAX_CALIBRATION")


def test_errors_of_tensorrt_are_kept_and_chatter_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "tensorrt", "10.13.0.35")
    found = find_bindings()
    for level, text in ((3, "chatter"), (1, "broken"), (4, "more"), (0, "badly")):
        found.logger.log(level, text)
    assert list(found.errors) == ["broken", "badly"]
