"""The calls that the runtime makes exist: in `typings`, which mypy holds the code against, as in the real packages.

`typings` is the one list of what is called. A call that is misspelt, or that a release renamed, fails here: our code
against `typings` (by mypy in `scripts/check`, and here where mypy can't see), `typings` against NVIDIA's own types and
classes, and the stand-ins of these tests against `typings`.
"""

import ast
import contextlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nomadserve_runtime.engines.trt import bindings
from tests.tensorrt_rtx import needs_rtx
from tests.unit.runtime.trt.fake_cuda import FakeLibrary, Machine, fake_driver
from tests.unit.runtime.trt.fake_tensorrt_runtime import fake_tensorrt

ROOT = Path(__file__).parents[4]
OURS = ROOT / "runtime" / "nomadserve_runtime" / "engines" / "trt"
# Signature: class ("" for the module), name, names of its arguments; None for what is no function.
Signature = tuple[str, str, tuple[str, ...] | None]


def signatures(path: Path) -> Iterator[Signature]:
    """Everything that a stub file declares."""
    for node in _statements(path.read_text(encoding="utf-8")):
        if isinstance(node, ast.ClassDef):
            yield "", node.name, None
            yield from (found for member in node.body for found in _members(node.name, member))
        else:
            yield from _members("", node)


def _statements(text: str) -> Iterator[ast.stmt]:
    """The top of a file, one by one: NVIDIA's types are no valid Python everywhere, but where we look they are."""
    for piece in re.split(r"^(?=\w)", text, flags=re.MULTILINE):
        with contextlib.suppress(SyntaxError):
            yield from ast.parse(piece).body


def _members(owner: str, node: ast.AST) -> Iterator[Signature]:
    if isinstance(node, ast.FunctionDef):
        is_property = any(isinstance(mark, ast.Name) and mark.id == "property" for mark in node.decorator_list)
        arguments = [*node.args.posonlyargs, *node.args.args]
        yield owner, node.name, None if is_property else tuple(a.arg for a in arguments if a.arg != "self")
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield owner, node.target.id, None
    elif isinstance(node, ast.Assign):
        yield from ((owner, target.id, None) for target in node.targets if isinstance(target, ast.Name))


TENSORRT = sorted(set(signatures(ROOT / "typings" / "tensorrt" / "__init__.pyi")), key=str)
PYCUDA = sorted(set(signatures(ROOT / "typings" / "pycuda" / "driver.pyi")), key=str)


def nvidia_types() -> set[Signature]:
    # Beside the environment that runs this: `scripts/install` puts them there.
    return set(signatures(Path(sys.prefix) / "typings" / "tensorrt_bindings" / "tensorrt.pyi"))


def test_every_call_is_in_nvidias_own_types() -> None:
    theirs = nvidia_types()
    missing = [entry for entry in TENSORRT if entry not in theirs]
    assert missing == []


def test_a_misspelt_call_would_be_found() -> None:
    theirs = nvidia_types()
    assert ("IExecutionContext", "execute_async_v3", ("stream_handle",)) in theirs
    assert ("IExecutionContext", "execute_async_v2", ("stream_handle",)) not in theirs
    assert ("IExecutionContext", "execute_async_v3", ("stream",)) not in theirs


@needs_rtx
@pytest.mark.parametrize(("owner", "name", "arguments"), TENSORRT)
def test_every_call_is_in_the_real_tensorrt_rtx(
    owner: str, name: str, arguments: tuple[str, ...] | None, rtx: bindings.Bindings
) -> None:
    place = getattr(rtx.module, owner) if owner else rtx.module
    found = getattr(place, name)
    if arguments and not name.startswith("__"):
        text = found.__doc__ or ""
        assert any(re.search(pattern, text) for pattern in [r".*?".join(rf"\b{a}: " for a in arguments)]), text[:300]


@pytest.mark.parametrize(("owner", "name", "arguments"), TENSORRT)
def test_the_stand_in_for_tensorrt_has_every_call_as_it_is(
    owner: str, name: str, arguments: tuple[str, ...] | None
) -> None:
    check_stand_in(fake_tensorrt(Machine()), owner, name, arguments)


@pytest.mark.parametrize(("owner", "name", "arguments"), PYCUDA)
def test_the_stand_in_for_pycuda_has_every_call_as_it_is(
    owner: str, name: str, arguments: tuple[str, ...] | None
) -> None:
    check_stand_in(fake_driver(Machine()), owner, name, arguments)


def check_stand_in(module: Any, owner: str, name: str, arguments: tuple[str, ...] | None) -> None:
    place = getattr(module, owner) if owner else module
    if arguments is None:
        # What the instances of a class have, is a class attribute or set in its constructor.
        assert hasattr(place, name) or f"self.{name} =" in inspect.getsource(place)
    else:
        found = [argument for argument in inspect.signature(getattr(place, name)).parameters if argument != "self"]
        assert tuple(found) == arguments


@pytest.mark.skipif(importlib.util.find_spec("pycuda") is None, reason="pycuda is not installed: it needs nvcc")
def test_every_call_is_in_the_real_pycuda() -> None:
    driver = importlib.import_module("pycuda.driver")
    assert [entry for entry in PYCUDA if not hasattr(getattr(driver, entry[0], driver), entry[1])] == []


def used_of_the_module() -> set[tuple[str, ...]]:
    """`module.A.b` in our files: the package itself is of no type that mypy could check."""
    used = set()
    for name in ("engine", "faults", "pipeline", "signature", "worker"):
        for node in ast.walk(ast.parse((OURS / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                used.add(_chain(node))
    return {chain for chain in used if chain}


def _chain(node: ast.expr) -> tuple[str, ...]:
    """("A", "b") for `module.A.b`, wherever the module comes from; nothing for what starts elsewhere."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        if node.attr in ("module", "_module"):
            return tuple(reversed(names))
        names.append(node.attr)
        node = node.value
    return tuple(reversed(names)) if isinstance(node, ast.Name) and node.id == "module" else ()


def test_what_is_taken_from_the_package_itself_is_in_typings() -> None:
    used = used_of_the_module()
    assert ("TensorIOMode", "INPUT") in used
    known = {(owner, name) if owner else (name,) for owner, name, _ in TENSORRT}
    known |= {("Runtime", "deserialize_cuda_engine"), ("__version__",)}
    assert used <= known


def test_the_driver_s_own_functions_are_those_of_its_header() -> None:
    """https://docs.nvidia.com/cuda/cuda-driver-api/: `cuda.h` maps cuStreamBeginCapture to its `_v2`."""
    called = set(re.findall(r"\b(cu[A-Z]\w+)", (OURS / "graphs.py").read_text(encoding="utf-8")))
    assert called == {name for name in dir(FakeLibrary) if name.startswith("cu")}
