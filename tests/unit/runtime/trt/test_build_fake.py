"""What TensorRT 10 and 11 are asked for, where there is none of them: by a fake of their builder."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nomadserve_runtime.engines.trt import bindings, builder, calibrator
from nomadserve_runtime.engines.trt.cache import plan_for
from nomadserve_runtime.engines.trt.device import DeviceArrays, Gpu
from nomadserve_runtime.engines.trt.options import BuildOptions
from nomadserve_runtime.errors import CannotStart, WrongSetting
from tests.unit.runtime.trt.fake_tensorrt import Config, FakeTensorRT, Network
from tests.unit.runtime.trt.models import write_product
from tests.unit.runtime.trt.test_device import Driver

L4 = Gpu("NVIDIA L4", "8.9")
STRONG = 1 << 1


@pytest.fixture(params=["10.13.0.35", "11.4.0.106"])
def tensorrt(request: pytest.FixtureRequest, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRT]:
    module = FakeTensorRT(request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setenv("NOMADSERVE_TENSORRT", "tensorrt")
    monkeypatch.setattr(builder, "find_gpu", lambda: L4)
    bindings._find.cache_clear()
    yield module
    bindings._find.cache_clear()


ten = pytest.mark.parametrize("tensorrt", ["10.13.0.35"], indirect=True)
eleven = pytest.mark.parametrize("tensorrt", ["11.4.0.106"], indirect=True)


def built(tensorrt: FakeTensorRT, path: Path, **given: Any) -> tuple[Network, Config]:
    plan = plan_for(path, msgspec.convert(given, BuildOptions), progress=None)
    assert plan.data == b"a plan"
    return tensorrt.built[-1]


def test_a_plan_names_the_gpu_that_it_was_built_on(tensorrt: FakeTensorRT, tmp_path: Path) -> None:
    plan = plan_for(write_product(tmp_path / "m.onnx"), BuildOptions(), progress=None)
    assert plan.metadata is not None
    assert (plan.metadata.gpu, plan.metadata.compute_capability) == ("NVIDIA L4", "8.9")
    assert (plan.metadata.flavour, plan.metadata.version) == ("tensorrt", tensorrt.__version__)


@pytest.mark.parametrize(("precision", "flags"), [("fp32", set()), ("tf32", {"TF32"})])
def test_the_models_own_types_rule_where_nothing_else_is_asked_for(
    precision: str, flags: set[str], tensorrt: FakeTensorRT, tmp_path: Path
) -> None:
    network, config = built(tensorrt, write_product(tmp_path / "m.onnx"), precision=precision)
    assert (network.flags, config.flags) == (STRONG, flags)


@ten
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_ten_picks_the_format_layer_by_layer(precision: str, tensorrt: FakeTensorRT, tmp_path: Path) -> None:
    network, config = built(tensorrt, write_product(tmp_path / "m.onnx"), precision=precision)
    assert (network.flags, config.flags) == (0, {"TF32", precision.upper()})


@eleven
def test_eleven_gets_a_converted_model_for_fp16(tensorrt: FakeTensorRT, tmp_path: Path) -> None:
    network, config = built(tensorrt, write_product(tmp_path / "m.onnx"), precision="fp16")
    assert (network.flags, config.flags) == (STRONG, {"TF32"})


def test_a_model_in_fp16_is_taken_as_it_is(tensorrt: FakeTensorRT, tmp_path: Path) -> None:
    network, config = built(tensorrt, write_product(tmp_path / "m.onnx", dtype="f2"), precision="fp16")
    assert (network.flags, config.flags) == (STRONG, {"TF32"})


def test_options_reach_the_builder(tensorrt: FakeTensorRT, tmp_path: Path) -> None:
    _, config = built(
        tensorrt, write_product(tmp_path / "m.onnx"), max_batch=16, workspace_mib=512, optimization_level=5
    )
    assert config.profiles[0].shapes == {"x": ((1, 8), (16, 8), (16, 8))}
    assert config.limits == {0: 512 << 20}
    assert config.builder_optimization_level == 5


def test_timings_are_kept_for_the_next_build(tensorrt: FakeTensorRT, tmp_path: Path, cache: Path) -> None:
    path = write_product(tmp_path / "m.onnx")
    assert built(tensorrt, path, max_batch=1)[1].timing == b""
    (kept,) = cache.glob("timing-*.cache")
    assert kept.name == f"timing-tensorrt-{tensorrt.__version__}-8.9.cache"
    assert built(tensorrt, path, max_batch=2)[1].timing == b"+"
    kept.write_bytes(b"of another GPU")
    assert built(tensorrt, path, max_batch=3)[1].timing == b"", "begun anew"


def test_without_a_gpu_there_is_nothing_to_time(
    tensorrt: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "find_gpu", lambda: None)
    with pytest.raises(CannotStart, match="times every layer on the GPU") as caught:
        plan_for(write_product(tmp_path / "m.onnx"), BuildOptions(), progress=None)
    assert "--on-cluster" in caught.value.hint


def test_another_gpu_than_the_one_here_is_refused(tensorrt: FakeTensorRT, tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match=r"NVIDIA L4, compute capability 8\.9, not 9\.0"):
        plan_for(write_product(tmp_path / "m.onnx"), BuildOptions(compute_capability="9.0"), progress=None)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("createInferBuilder: CUDA initialization failure with error: 35 cudaError 35", "no driver for it answers"),
        ("Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)", "the memory of the GPU does not suffice"),
        (
            "Error Code 10: Internal Error (Could not find any implementation for node /layer1/Conv.)",
            "has no implementation of `/layer1/Conv`",
        ),
        (
            "IBuilder::x: Error Code 9: API Usage Error (Something else went wrong. In validate at /_src/a.cpp:12)",
            "can't build `m.onnx`: Something else went wrong$",
        ),
    ],
)
def test_what_the_builder_says_is_translated(said: str, message: str, tensorrt: FakeTensorRT, tmp_path: Path) -> None:
    def fail(logger: Any, config: Config) -> bool:
        logger.log(1, said)
        return False

    tensorrt.on_build = fail
    with pytest.raises(CannotStart, match=message) as caught:
        plan_for(write_product(tmp_path / "m.onnx"), BuildOptions(), progress=None)
    assert caught.value.hint


# INT8 with calibration data.


@ten
def test_ten_measures_ranges_on_the_rows_it_is_given(
    tensorrt: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver()
    monkeypatch.setattr(calibrator, "DeviceArrays", lambda: DeviceArrays(driver))
    rows = np.arange(70 * 8, dtype=np.float32).reshape(70, 8)
    np.savez(tmp_path / "data.npz", x=rows.astype(np.float64))
    seen: list[bytes] = []

    def measure(logger: Any, config: Config) -> bool:
        calibrates = config.int8_calibrator
        assert calibrates.get_batch_size() == 32
        assert calibrates.read_calibration_cache() is None
        while addresses := calibrates.get_batch(["x"]):
            seen.append(driver.memory[addresses[0]])
        calibrates.write_calibration_cache(b"ranges")
        return True

    tensorrt.on_build = measure
    network, config = built(
        tensorrt, write_product(tmp_path / "m.onnx"), precision="int8", calibration=str(tmp_path / "data.npz")
    )
    assert (network.flags, config.flags) == (0, {"TF32", "INT8", "FP16"})
    assert config.calibration_profile.shapes == {"x": ((32, 8), (32, 8), (32, 8))}
    assert b"".join(seen) == rows[:64].tobytes(), "whole batches only"
    assert not driver.memory, "the memory of the GPU is given back"


@ten
def test_ten_needs_data_to_calibrate_with(tensorrt: FakeTensorRT, tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match="int8 needs calibration data") as caught:
        plan_for(write_product(tmp_path / "m.onnx"), BuildOptions(precision="int8"), progress=None)
    assert "--calibration" in caught.value.hint


@eleven
def test_eleven_calibrates_no_more(tensorrt: FakeTensorRT, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 8), np.float32))
    options = BuildOptions(precision="int8", calibration=str(tmp_path / "data.npz"))
    with pytest.raises(WrongSetting, match=r"can't calibrate, and `m\.onnx` holds no quantization") as caught:
        plan_for(write_product(tmp_path / "m.onnx"), options, progress=None)
    assert "modelopt.onnx.quantization" in caught.value.hint


def test_calibration_data_for_another_precision_is_refused(tensorrt: FakeTensorRT, tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match="calibration data without the precision int8"):
        plan_for(
            write_product(tmp_path / "m.onnx"),
            BuildOptions(precision="fp16", calibration=str(tmp_path / "data.npz")),
            progress=None,
        )


@ten
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros((4, 8))}, "holds `y`"),
        ({}, "holds nothing"),
        ({"x": np.zeros(())}, "differ in their rows"),
        (None, "can't read the calibration data"),
    ],
)
def test_calibration_data_of_another_model_is_refused(
    arrays: dict[str, Any] | None, message: str, tensorrt: FakeTensorRT, tmp_path: Path
) -> None:
    data = tmp_path / "data.npz"
    data.write_bytes(b"no archive") if arrays is None else np.savez(data, **arrays)
    with pytest.raises(WrongSetting, match=message) as caught:
        plan_for(
            write_product(tmp_path / "m.onnx"), BuildOptions(precision="int8", calibration=str(data)), progress=None
        )
    assert caught.value.hint


def test_ctrl_c_before_anybody_waits_for_the_builder_stops_it_too(
    tensorrt: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, begun, ended = threading.Thread.start, threading.Event(), threading.Event()

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "tensorrt-builder":
            assert begun.wait(10)
            raise KeyboardInterrupt

    def build(logger: Any, config: Config) -> bool:
        begun.set()
        give_up_at = time.monotonic() + 10
        while config.progress_monitor.step_complete("a phase", 0) and time.monotonic() < give_up_at:
            time.sleep(0.01)
        ended.set()
        return time.monotonic() >= give_up_at

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    tensorrt.on_build = build
    with pytest.raises(KeyboardInterrupt):
        plan_for(write_product(tmp_path / "m.onnx"), BuildOptions(), progress=None)
    assert ended.is_set()
