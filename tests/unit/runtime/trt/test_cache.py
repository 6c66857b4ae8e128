from pathlib import Path

import msgspec
import pytest

from nomadserve_runtime.engines.trt.cache import plan_for
from nomadserve_runtime.engines.trt.metadata import Metadata, metadata_path
from nomadserve_runtime.engines.trt.options import BuildOptions
from nomadserve_runtime.errors import WrongSetting

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
