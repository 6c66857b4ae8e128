"""The calls that a build makes exist in NVIDIA's own types, and the stand-in for TensorRT 10 has them as they are."""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.trt import fake_tensorrt
from tests.unit.runtime.trt.test_typings import OURS, Signature, nvidia_types

CALLS: list[Signature] = [
    ("Builder", "build_serialized_network", ("network", "config")),
    ("Builder", "create_builder_config", ()),
    ("Builder", "create_network", ("flags",)),
    ("Builder", "create_optimization_profile", ()),
    ("BuilderFlag", "BF16", None),
    ("BuilderFlag", "FP16", None),
    ("BuilderFlag", "INT8", None),
    ("BuilderFlag", "TF32", None),
    ("IBuilderConfig", "add_optimization_profile", ("profile",)),
    ("IBuilderConfig", "builder_optimization_level", None),
    ("IBuilderConfig", "clear_flag", ("flag",)),
    ("IBuilderConfig", "create_timing_cache", ("serialized_timing_cache",)),
    ("IBuilderConfig", "get_timing_cache", ()),
    ("IBuilderConfig", "int8_calibrator", None),
    ("IBuilderConfig", "progress_monitor", None),
    ("IBuilderConfig", "set_calibration_profile", ("profile",)),
    ("IBuilderConfig", "set_flag", ("flag",)),
    ("IBuilderConfig", "set_memory_pool_limit", ("pool", "pool_size")),
    ("IBuilderConfig", "set_timing_cache", ("cache", "ignore_mismatch")),
    ("IInt8EntropyCalibrator2", "get_batch", ("names",)),
    ("IInt8EntropyCalibrator2", "get_batch_size", ()),
    ("IInt8EntropyCalibrator2", "read_calibration_cache", ()),
    ("IInt8EntropyCalibrator2", "write_calibration_cache", ("cache",)),
    ("IOptimizationProfile", "set_shape", ("input", "min", "opt", "max")),
    ("IProgressMonitor", "phase_finish", ("phase_name",)),
    ("IProgressMonitor", "phase_start", ("phase_name", "parent_phase", "num_steps")),
    ("IProgressMonitor", "step_complete", ("phase_name", "step")),
    ("ITensor", "dtype", None),
    ("ITensor", "is_shape_tensor", None),
    ("ITensor", "name", None),
    ("ITensor", "shape", None),
    ("ITimingCache", "serialize", ()),
    ("MemoryPoolType", "WORKSPACE", None),
    ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED", None),
    ("OnnxParser", "get_error", ("index",)),
    ("OnnxParser", "num_errors", None),
    ("OnnxParser", "parse_from_file", ("model",)),
    ("ParserError", "code", ()),
    ("ParserError", "desc", ()),
    ("ParserError", "node", ()),
    ("ParserError", "node_name", ()),
    ("ParserError", "node_operator", ()),
]
STAND_INS = {"IBuilderConfig": "Config", "IOptimizationProfile": "Profile"}
# Of these, our own subclasses are called.
OVERRIDDEN = {"IProgressMonitor": "monitor", "IInt8EntropyCalibrator2": "calibrator"}


@pytest.fixture(scope="module")
def theirs() -> set[tuple[str, str]]:
    """Classes and their members."""
    return {(owner, name) for owner, name, _ in nvidia_types()}


@pytest.mark.parametrize(("owner", "name", "arguments"), CALLS)
def test_every_call_of_a_build_is_in_nvidias_own_types(
    owner: str, name: str, arguments: tuple[str, ...] | None, theirs: set[tuple[str, str]]
) -> None:
    assert (owner, name) in theirs
    if arguments is not None:
        assert (owner, name, arguments) in nvidia_types()


@pytest.mark.parametrize(("owner", "name", "arguments"), [call for call in CALLS if call[0] in STAND_INS])
def test_the_stand_in_has_every_call_as_it_is(owner: str, name: str, arguments: tuple[str, ...] | None) -> None:
    place = getattr(fake_tensorrt, STAND_INS[owner])
    if arguments is None:
        assert hasattr(place(), name)
    else:
        assert tuple(inspect.signature(getattr(place, name)).parameters)[1:] == arguments


@pytest.mark.parametrize(("owner", "module"), OVERRIDDEN.items())
def test_what_tensorrt_calls_back_has_its_names(owner: str, module: str) -> None:
    methods = {node.name: names_of(node) for node in functions(OURS / f"{module}.py")}
    for _, name, arguments in (call for call in CALLS if call[0] == owner):
        assert methods[name] == arguments, name


def functions(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def names_of(node: ast.FunctionDef) -> tuple[str, ...]:
    return tuple(argument.arg for argument in node.args.args if argument.arg != "self")


def test_every_attribute_of_a_config_is_in_the_list() -> None:
    """What `config.…` is asked for in our files; the object is of no type that mypy could check."""
    used: set[str] = set()
    for name in ("builder", "calibrator", "monitor", "timing"):
        for node in ast.walk(ast.parse((OURS / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "config":
                used.add(node.attr)
    of_rtx: set[Any] = {"num_compute_capabilities", "set_compute_capability"}  # not in TensorRT's types: tried for real
    assert used - of_rtx == {name for owner, name, _ in CALLS if owner == "IBuilderConfig"}
