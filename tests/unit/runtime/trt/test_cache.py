import json
import logging
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nomadserve_runtime.engines.trt import cache as cache_module
from nomadserve_runtime.engines.trt.cache import discard, plan_for
from nomadserve_runtime.engines.trt.metadata import Metadata, metadata_path
from nomadserve_runtime.engines.trt.options import BuildOptions
from nomadserve_runtime.errors import CannotStart, WrongSetting
from tests.tensorrt_rtx import FOLDER, needs_rtx
from tests.unit.runtime.trt.models import write_apart, write_deep, write_product

METADATA = Metadata(
    plan_sha256="ab" * 32,
    onnx_sha256="cd" * 32,
    flavour="tensorrt",
    version="10.13.0.35",
    gpu="NVIDIA H200",
    compute_capability="9.0",
    precision="fp16",
    profiles=(),
    options={},
    nomadserve="0.1.0",
    built_at="2026-01-02T03:04:05+00:00",
    build_s=61.5,
)


def test_a_plan_is_taken_as_it_is(tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"ptrt")
    found = plan_for(plan, BuildOptions(), progress=None)
    assert (found.data, found.metadata, found.origin) == (b"ptrt", None, "given")
    assert not discard(found), "it is not ours to forget"


def test_what_lies_beside_a_plan_tells_where_it_comes_from(tmp_path: Path) -> None:
    plan = tmp_path / "model.engine"
    plan.write_bytes(b"ptrt")
    assert metadata_path(plan).name == "model.engine.json"
    metadata_path(plan).write_bytes(msgspec.json.encode(METADATA))
    assert plan_for(plan, BuildOptions(), progress=None).metadata == METADATA


def test_metadata_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"ptrt")
    metadata_path(plan).write_text('{"gpu": ')
    assert plan_for(plan, BuildOptions(), progress=None).metadata is None


def test_a_missing_model_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match="there is no model file"):
        plan_for(tmp_path / "model.plan", BuildOptions(), progress=None)


# With the real builder.


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_a_model_is_built_once(tmp_path: Path) -> None:
    path = write_product(tmp_path / "m.onnx")
    first, second = (plan_for(path, BuildOptions(), progress=None) for _ in range(2))
    assert (first.origin, second.origin) == ("built", "cached")
    assert first.data == second.data
    assert first.metadata == second.metadata


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_another_model_or_another_wish_is_another_plan(tmp_path: Path) -> None:
    path = write_product(tmp_path / "m.onnx")
    plan_for(path, BuildOptions(), progress=None)
    for options in (BuildOptions(max_batch=8), BuildOptions(precision="fp32"), BuildOptions(compute_capability="8.9")):
        assert plan_for(path, options, progress=None).origin == "built"
    assert plan_for(write_product(path, batch=2), BuildOptions(), progress=None).origin == "built"


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_changed_weights_beside_the_model_are_another_plan(tmp_path: Path) -> None:
    path = write_apart(tmp_path / "m.onnx")
    plan_for(path, BuildOptions(), progress=None)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[::-1])
    assert plan_for(path, BuildOptions(), progress=None).origin == "built"


@needs_rtx
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("damage", ["flipped", "cut off", "no metadata", "metadata cut off", "of another release"])
def test_a_damaged_entry_is_built_anew_and_said(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_product(tmp_path / "m.onnx")
    plan = plan_for(path, BuildOptions(), progress=None)
    beside = metadata_path(plan.path)
    match damage:
        case "flipped":
            plan.path.write_bytes(plan.data[:-1] + bytes([plan.data[-1] ^ 1]))
        case "cut off":
            plan.path.write_bytes(plan.data[:100])
        case "no metadata":
            beside.unlink()
        case "metadata cut off":
            beside.write_bytes(beside.read_bytes()[:50])
        case "of another release":
            beside.write_text(json.dumps(json.loads(beside.read_text()) | {"version": "1.0"}))
    with caplog.at_level(logging.WARNING):
        assert plan_for(path, BuildOptions(), progress=None).origin == "built"
    assert "built anew" in caplog.text
    assert plan_for(path, BuildOptions(), progress=None).origin == "cached"


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_a_plan_that_its_gpu_refused_is_built_anew(tmp_path: Path) -> None:
    path = write_product(tmp_path / "m.onnx")
    assert discard(plan_for(path, BuildOptions(), progress=None))
    assert plan_for(path, BuildOptions(), progress=None).origin == "built"


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_a_plan_of_another_user_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_product(tmp_path / "m.onnx")
    plan = plan_for(path, BuildOptions(), progress=None)
    assert plan.path.with_suffix(".lock").stat().st_mode & 0o666 == 0o666
    assert plan.path.stat().st_mode & 0o044 == 0o044

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    for forbidden in ("utime", "fchmod"):
        monkeypatch.setattr(os, forbidden, refuse)
    assert plan_for(path, BuildOptions(), progress=None).origin == "cached"


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_nothing_but_whole_files_is_left(tmp_path: Path, cache: Path) -> None:
    plan = plan_for(write_product(tmp_path / "m.onnx"), BuildOptions(), progress=None)
    assert {file.name for file in cache.iterdir()} == {
        plan.path.name,
        plan.path.name + ".json",
        plan.path.with_suffix(".lock").name,
    }


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_what_nobody_used_for_long_makes_room(tmp_path: Path, cache: Path) -> None:
    old = plan_for(write_product(tmp_path / "old.onnx"), BuildOptions(), progress=None)
    kept = plan_for(write_product(tmp_path / "kept.onnx", batch=2), BuildOptions(), progress=None)
    part = cache / ".m.plan.x.part"
    part.write_bytes(b"half")
    long_ago = time.time() - cache_module.UNUSED_S_MAX - 60
    for file in (metadata_path(old.path), part):
        os.utime(file, (long_ago, long_ago))
    plan_for(write_product(tmp_path / "new.onnx", batch=3), BuildOptions(), progress=None)
    assert not old.path.exists()
    assert not part.exists()
    assert kept.path.exists()


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NOMADSERVE_ENGINE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CannotStart, match="no plans can be kept") as caught:
        plan_for(write_product(tmp_path / "m.onnx"), BuildOptions(), progress=None)
    assert "NOMADSERVE_ENGINE_CACHE" in caught.value.hint


class Lines:
    """Passes on what a build says."""

    def __init__(self, said: Any) -> None:
        self._said = said

    def say(self, text: str) -> None:
        self._said.put(text)

    def moving(self, phase: str, share: float) -> None: ...


def build_in_process(path: str, said: Any, answers: Any) -> None:
    """What a replica does when it starts."""
    import sys

    sys.path.append(str(FOLDER))
    plan = plan_for(Path(path), BuildOptions(), progress=Lines(said))
    answers.put((plan.origin, len(plan.data)))


@needs_rtx
@pytest.mark.usefixtures("rtx")
def test_of_replicas_that_start_together_one_builds(tmp_path: Path) -> None:
    path = write_deep(tmp_path / "deep.onnx", layers=60)
    spawn = multiprocessing.get_context("spawn")
    said, answers = spawn.Queue(), spawn.Queue()
    replicas = [spawn.Process(target=build_in_process, args=(str(path), said, answers), daemon=True) for _ in range(3)]
    key = cache_module.key_of(cache_module.builder.prepare(path, BuildOptions()))
    with cache_module._locked(cache_module.cache_folder() / f"{key}.plan", path, None):
        for replica in replicas:
            replica.start()
        waiting = [said.get(timeout=120) for _ in replicas]
    found = [answers.get(timeout=120) for _ in replicas]
    for replica in replicas:
        replica.join(60)
    assert all("another process of this node builds it already" in line for line in waiting)
    assert sorted(origin for origin, _ in found) == ["built", "cached", "cached"]
    assert len({size for _, size in found}) == 1
