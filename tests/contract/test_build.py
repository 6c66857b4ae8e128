"""`nomadserve build` as a user runs it, with the real TensorRT-RTX; no GPU is needed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.signals import signals_heard
from tests.tensorrt_rtx import FOLDER, needs_rtx
from tests.unit.runtime.trt.models import write_deep, write_one, write_product

NOMADSERVE = Path(sys.executable).parent / "nomadserve"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    foreign = ("NOMAD_", "CONSUL_", "NOMADSERVE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **kept,
        "PYTHONPATH": str(FOLDER or ""),
        "NOMADSERVE_ENGINE_CACHE": str(tmp_path / "cache"),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


def build(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [NOMADSERVE, "build", *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@needs_rtx
def test_a_plan_is_written_with_what_is_known_about_it(environment: dict[str, str], tmp_path: Path) -> None:
    model, plan = write_product(tmp_path / "m.onnx"), tmp_path / "m.plan"
    done = build(environment, model, "-o", plan, "--precision", "fp16", "--max-batch", "8", "--workspace", "1 GiB")
    assert (done.returncode, done.stdout) == (0, f"{plan}\n"), done.stderr
    assert "m.onnx: built in " in done.stderr
    assert "tensorrt_rtx 1." in done.stderr
    beside = json.loads((tmp_path / "m.plan.json").read_text())
    assert beside["precision"] == "fp16"
    assert beside["profiles"] == [{"x": {"min": [1, 8], "opt": [8, 8], "max": [8, 8]}}]
    assert beside["options"]["workspace_mib"] == 1024
    assert plan.stat().st_size > 1000
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cache", "m.onnx", "m.plan", "m.plan.json"]


@needs_rtx
def test_without_a_file_the_plan_goes_where_replicas_find_it(environment: dict[str, str], tmp_path: Path) -> None:
    model = write_product(tmp_path / "m.onnx")
    first, second = build(environment, model, "--json"), build(environment, model, "--json")
    assert [json.loads(done.stdout)[0]["origin"] for done in (first, second)] == ["built", "cached"], first.stderr
    assert "m.onnx: was built already" in second.stderr
    assert Path(json.loads(first.stdout)[0]["path"]).parent == tmp_path / "cache"


@needs_rtx
def test_the_models_of_a_job_are_built_as_its_replicas_want_them(environment: dict[str, str], tmp_path: Path) -> None:
    write_one(tmp_path / "text.onnx", "Relu", ["n", "length"])
    shapes = {"min": [1, 1], "opt": [4, 16], "max": [8, 32]}
    built = {"name": "text", "path": str(tmp_path / "text.onnx"), "engine": "tensorrt", "profiles": [{"x": shapes}]}
    other = {"name": "other", "path": "/nowhere.onnx"}
    done = build({**environment, "NOMADSERVE_MODELS": json.dumps([built, other])}, "--json")
    assert done.returncode == 0, done.stderr
    (plan,) = json.loads(done.stdout)
    assert (plan["model"], plan["metadata"]["profiles"]) == ("text", [{"x": shapes}])


@needs_rtx
def test_profiles_are_given_as_shapes(environment: dict[str, str], tmp_path: Path) -> None:
    model = write_one(tmp_path / "text.onnx", "Relu", ["n", "length"])
    done = build(environment, model, "--profile", "x=1,1:4,16:8,32", "--profile", "x=1,33:4,64:8,128", "--json")
    assert done.returncode == 0, done.stderr
    profiles = json.loads(done.stdout)[0]["metadata"]["profiles"]
    assert [profile["x"]["max"] for profile in profiles] == [[8, 32], [8, 128]]


@needs_rtx
def test_what_can_not_be_built_exits_2_and_names_the_node(environment: dict[str, str], tmp_path: Path) -> None:
    done = build(environment, write_one(tmp_path / "m.onnx", "Frobnicate", ["n", 8], domain="my.ops"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "`Frobnicate` (node `the_node`): no such operator" in done.stderr
    assert "hint: serve it with" in done.stderr


@needs_rtx
@pytest.mark.parametrize("line", ["Detected 1 inputs and 1 output", "Compiler backend is used during engine build"])
def test_ctrl_c_ends_a_build_and_leaves_nothing_half_done(
    line: str, environment: dict[str, str], tmp_path: Path
) -> None:
    model = write_deep(tmp_path / "deep.onnx", layers=600)
    plan = tmp_path / "deep.plan"
    with signals_heard():
        process = subprocess.Popen(
            [NOMADSERVE, "build", model, "-o", plan, "--log-level", "debug"],
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert process.stderr is not None
    try:
        # What it says when it begins, and when it begins to compile; it takes seconds from there.
        assert any(line in said for said in process.stderr)
    finally:
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert not plan.exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cache", "deep.onnx"]


@needs_rtx
def test_a_profile_that_is_none_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    model = write_product(tmp_path / "m.onnx")
    assert "is no range of shapes" in build(environment, model, "--profile", "x=1,8:4,8").stderr
    wrong = build(environment, model, "--profile", "x=4,8:1,8:8,8")
    assert wrong.returncode == 2
    assert "are not in that order" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no model to build"),
        (["--precision", "fp16"], "`--precision` without a model file"),
        (["m.plan"], "`m.plan` is a plan already"),
        (["m.onnx", "-o", "m.onnx"], "does not look like a plan"),
        (["m.onnx", "-o", "nowhere/m.plan"], "there is no folder `nowhere`"),
    ],
)
def test_what_can_not_be_meant_exits_2(
    arguments: list[str], said: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done = build(environment, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "hint: " in done.stderr


def test_without_tensorrt_the_way_to_get_it_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    done = build({**environment, "PYTHONPATH": ""}, write_product(tmp_path / "m.onnx"))
    if done.returncode == 0 or "is not there" not in done.stderr:
        pytest.skip("TensorRT is installed here")
    assert done.returncode == 1
    assert "pip install 'nomadserve[tensorrt]'" in done.stderr
