"""Plans built by the real TensorRT-RTX, and what it refuses, in the words that a user reads."""

import json
from pathlib import Path

import msgspec
import pytest
from onnx import TensorProto

from nomadserve_runtime.engines.trt import builder
from nomadserve_runtime.engines.trt.bindings import Bindings
from nomadserve_runtime.engines.trt.cache import plan_for
from nomadserve_runtime.engines.trt.metadata import metadata_path
from nomadserve_runtime.engines.trt.options import BuildOptions
from nomadserve_runtime.errors import CannotStart, WrongSetting
from tests.tensorrt_rtx import needs_rtx
from tests.unit.runtime.trt.models import (
    write_apart,
    write_deep,
    write_one,
    write_product,
    write_quantized,
    write_reshape,
    write_sum,
)

pytestmark = [needs_rtx, pytest.mark.usefixtures("rtx")]


def options(**given: object) -> BuildOptions:
    return msgspec.convert(given, BuildOptions)


def refusal(path: Path, **given: object) -> WrongSetting:
    with pytest.raises(WrongSetting) as caught:
        plan_for(path, options(**given), progress=None)
    assert caught.value.hint
    return caught.value


def test_a_model_is_built_without_a_gpu(tmp_path: Path, rtx: Bindings) -> None:
    plan = plan_for(write_product(tmp_path / "m.onnx"), options(max_batch=16), progress=None)
    assert plan.origin == "built"
    assert len(plan.data) > 1000
    metadata = plan.metadata
    assert metadata is not None
    assert (metadata.flavour, metadata.version, metadata.precision) == ("tensorrt_rtx", rtx.version, "tf32")
    assert (metadata.gpu, metadata.compute_capability) == ("", ""), "portable, and built without a GPU"
    assert metadata.profiles[0]["x"].max == (16, 8)
    beside = json.loads(metadata_path(plan.path).read_text())
    assert beside["onnx_sha256"] == metadata.onnx_sha256
    assert beside["profiles"] == [{"x": {"min": [1, 8], "opt": [16, 8], "max": [16, 8]}}]


def test_a_plan_for_one_compute_capability_says_so(tmp_path: Path) -> None:
    plan = plan_for(write_product(tmp_path / "m.onnx"), options(compute_capability="8.9"), progress=None)
    assert plan.metadata is not None
    assert plan.metadata.compute_capability == "8.9"


def test_a_compute_capability_that_the_release_does_not_know_is_refused(tmp_path: Path) -> None:
    refused = refusal(write_product(tmp_path / "m.onnx"), compute_capability="9.0")
    assert "does not build for compute capability 9.0" in refused.message
    assert "8.9" in refused.hint


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
def test_an_fp32_model_is_built_in(precision: str, tmp_path: Path) -> None:
    plan = plan_for(write_product(tmp_path / "m.onnx"), options(precision=precision), progress=None)
    assert plan.metadata is not None
    assert plan.metadata.precision == precision


def test_what_was_converted_to_fp16_computes_in_it_and_keeps_its_inputs(tmp_path: Path, rtx: Bindings) -> None:
    from nomadserve_runtime.engines.trt.half import convert_to_fp16

    (tmp_path / "half").mkdir()
    converted = convert_to_fp16(write_product(tmp_path / "m.onnx"), tmp_path / "half")
    network = rtx.module.Builder(rtx.logger).create_network(0)
    parser = rtx.module.OnnxParser(network, rtx.logger)
    assert parser.parse_from_file(str(converted))
    formats = {network.get_layer(index).get_output(0).dtype for index in range(network.num_layers)}
    assert rtx.module.DataType.HALF in formats
    assert network.get_input(0).dtype == network.get_output(0).dtype == rtx.module.DataType.FLOAT


def test_a_model_with_quantization_of_its_own_is_built_in_int8(tmp_path: Path) -> None:
    assert plan_for(write_quantized(tmp_path / "m.onnx"), options(precision="int8"), progress=None).origin == "built"


def test_a_model_of_fixed_shapes_and_one_of_many_profiles_are_built(tmp_path: Path) -> None:
    fixed = plan_for(write_product(tmp_path / "fixed.onnx", batch=4), options(), progress=None)
    assert fixed.metadata is not None
    assert fixed.metadata.profiles == ()
    shapes = {"min": [1, 1], "opt": [4, 16], "max": [8, 32]}, {"min": [1, 33], "opt": [4, 64], "max": [8, 128]}
    text = write_one(tmp_path / "text.onnx", "Relu", ["n", "length"])
    plan = plan_for(text, options(profiles=[{"x": shape} for shape in shapes]), progress=None)
    assert plan.metadata is not None
    assert len(plan.metadata.profiles) == 2


def test_weights_beside_the_model_are_built_in(tmp_path: Path) -> None:
    assert plan_for(write_apart(tmp_path / "m.onnx"), options(), progress=None).origin == "built"


def test_an_operator_of_nobody_is_named_with_its_node(tmp_path: Path) -> None:
    refused = refusal(write_one(tmp_path / "m.onnx", "Frobnicate", ["n", 8], domain="my.ops"))
    assert refused.message.splitlines()[0].endswith("can't run `m.onnx`:")
    wanted = "`Frobnicate` (node `the_node`): no such operator, and no plugin of that name is loaded"
    assert refused.message.splitlines()[1].strip() == wanted
    assert "onnxruntime" in refused.hint


def test_an_operator_of_onnx_that_is_not_supported_is_named_with_its_node(tmp_path: Path) -> None:
    refused = refusal(write_one(tmp_path / "m.onnx", "Det", ["n", 4, 4]))
    assert "`Det` (node `the_node`)" in refused.message


def test_texts_are_refused(tmp_path: Path) -> None:
    refused = refusal(write_one(tmp_path / "m.onnx", "Identity", ["n"], kind=TensorProto.STRING))
    assert "knows no tensors of a type" in refused.message


def test_a_size_fixed_inside_of_the_model_is_named_by_its_layer(tmp_path: Path) -> None:
    refused = refusal(write_reshape(tmp_path / "m.onnx"))
    assert "profile 1 does not fit `m.onnx` at the layer `fixed_inside`" in refused.message


def test_inputs_whose_batches_contradict_one_another_are_refused(tmp_path: Path) -> None:
    profile = {
        "a": {"min": [1, 8], "opt": [4, 8], "max": [8, 8]},
        "b": {"min": [1, 8], "opt": [2, 8], "max": [3, 8]},
    }
    refused = refusal(write_sum(tmp_path / "m.onnx"), profiles=[profile])
    assert "the shapes of a profile contradict one another" in refused.message


@pytest.mark.parametrize("precision", ["bf16", "int8", "fp8"])
def test_a_precision_that_only_the_model_can_bring_is_refused_with_the_way_to_it(
    precision: str, tmp_path: Path
) -> None:
    refused = refusal(write_product(tmp_path / "m.onnx"), precision=precision)
    assert "modelopt.onnx" in refused.hint


def test_progress_moves_from_nothing_to_the_end(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []

    class Progress:
        def say(self, text: str) -> None: ...

        def moving(self, phase: str, share: float) -> None:
            told.append((phase, share))

    plan_for(write_deep(tmp_path / "deep.onnx", layers=20), options(), progress=Progress())
    shares = [share for _, share in told]
    assert told[0] == ("reading the model", 0.0)
    assert shares == sorted(shares)
    assert told[-1] == ("built", 1.0)
    assert shares[-2] > 0.5
    assert len({phase for phase, _ in told}) > 3


def test_a_builder_without_a_driver_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rtx: Bindings) -> None:
    """`CURRENT` asks for the GPU of this machine; there is none."""
    if builder.find_gpu() is not None:
        pytest.skip("there is a GPU here")
    current = rtx.module.ComputeCapability.CURRENT
    monkeypatch.setattr(builder, "_member_for", lambda *_: current)
    with pytest.raises(CannotStart, match=r"needs a GPU to build `m\.onnx`, and no driver"):
        plan_for(write_product(tmp_path / "m.onnx"), options(compute_capability="8.9"), progress=None)
