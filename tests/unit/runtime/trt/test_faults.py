"""What can go wrong between a plan and a GPU: each with its words and the way out."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu.networks import bert_base, resnet50
from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.engine import open_engine
from nomadserve_runtime.engines.trt import bindings, cuda, engine, faults
from nomadserve_runtime.engines.trt.cache import Plan, plan_for
from nomadserve_runtime.engines.trt.device import find_gpu
from nomadserve_runtime.engines.trt.metadata import Metadata
from nomadserve_runtime.engines.trt.options import BuildOptions
from nomadserve_runtime.errors import CannotStart, WrongSetting
from tests.tensorrt_rtx import needs_rtx
from tests.unit.runtime.models import write_sum_model
from tests.unit.runtime.trt.fake_cuda import Machine
from tests.unit.runtime.trt.fake_tensorrt_runtime import write_plan
from tests.unit.runtime.trt.gpu import opened, opening, plug_in

REBUILD = (
    "a plan runs on the version of TensorRT and the kind of GPU that it was built with: build it again on this node, "
    "`nomadserve build model.onnx`, or serve the `.onnx` itself"
)
DRIVER = "`nvidia-smi` must work on this node; a container has to be run with NVIDIA's runtime"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    plug_in(monkeypatch, machine)
    return machine


def refusal(path: Path, **options: Any) -> CannotStart:
    with pytest.raises(CannotStart) as caught:
        opened(path, **options)
    return caught.value


def test_a_plan_of_another_tensorrt(machine: Machine, tmp_path: Path) -> None:
    path = write_plan(tmp_path / "m.plan", version="10.9.0.34")
    found = refusal(path)
    assert isinstance(found, WrongSetting)
    assert found.message == (
        f"TensorRT 10.13.0.35 can't load `{path}`: IRuntime::deserializeCudaEngine: Error Code 1: Serialization "
        "(Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.)"
    )
    assert found.hint == REBUILD


def metadata(**changes: Any) -> Metadata:
    known: dict[str, Any] = {
        "plan_sha256": "",
        "onnx_sha256": "",
        "flavour": "tensorrt",
        "version": "10.9.0.34",
        "gpu": "NVIDIA A10",
        "compute_capability": "8.6",
        "precision": "fp16",
        "profiles": (),
        "options": {},
        "nomadserve": "",
        "built_at": "",
        "build_s": 0.0,
    }
    return Metadata(**known | changes)


def kept(path: Path, origin: Any) -> Plan:
    return Plan(path.read_bytes(), metadata(), origin, path)


def test_where_a_plan_comes_from_is_told_when_it_is_known(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_plan(tmp_path / "m.plan", capability="8.6")
    monkeypatch.setattr(engine, "plan_for", lambda *_, **__: kept(path, "given"))
    message = refusal(path).message
    assert "expecting compute 8.6 got compute 9.0" in message
    assert message.endswith(
        "\nit was built with TensorRT 10.9.0.34 for NVIDIA A10 (compute capability 8.6); here is TensorRT 10.13.0.35"
    )


def test_a_kept_plan_that_is_refused_is_built_again(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = write_plan(tmp_path / "old.plan", version="9"), write_plan(tmp_path / "new.plan")
    plans = [kept(old, "cached"), kept(new, "built")]
    monkeypatch.setattr(engine, "plan_for", lambda *_, **__: plans.pop(0))
    with opening(machine, tmp_path / "m.onnx") as found:
        assert found.batch_max == 8
    assert "is built again" in caplog.text


def test_what_was_built_just_now_and_is_refused_ends_the_start(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_plan(tmp_path / "m.plan", version="9")
    monkeypatch.setattr(engine, "plan_for", lambda *_, **__: kept(path, "cached"))
    assert "stdVersionRead" in refusal(path).message


def test_a_damaged_plan(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "m.plan"
    path.write_bytes(b"\x00\x01\x02 half of a plan")
    assert "magicTagRead" in refusal(path).message


def test_too_little_memory_for_the_weights(machine: Machine, tmp_path: Path) -> None:
    found = refusal(write_plan(tmp_path / "m.plan", weights=2**40))
    assert not isinstance(found, WrongSetting)
    assert found.message.startswith(f"not enough memory on the GPU for `{tmp_path / 'm.plan'}` (1.0 of 1.0 GiB free): ")
    assert found.hint == (
        "a smaller `max_batch`, fewer `instances`, or a GPU with more memory; `nvidia-smi` shows who else uses it"
    )


@pytest.mark.parametrize("changes", [{"scratch": 2**40}, {"has_no_contexts": True}])
def test_too_little_memory_to_compute(changes: dict[str, Any], machine: Machine, tmp_path: Path) -> None:
    assert refusal(write_plan(tmp_path / "m.plan", **changes)).message.startswith("not enough memory on the GPU")


def test_an_instance_too_many_gives_the_others_back(machine: Machine, tmp_path: Path) -> None:
    machine.capacity = 10_000
    found = refusal(write_plan(tmp_path / "m.plan"), instances=3)
    assert found.message.startswith("not enough memory on the GPU")
    assert (machine.problems, machine.pinned) == ([], 0)


def test_too_little_page_locked_memory_for_the_queue(machine: Machine, tmp_path: Path) -> None:
    with opening(machine, write_plan(tmp_path / "m.plan")) as engine:
        machine.pinned_max = machine.pinned
        with pytest.raises(CannotStart) as caught:
            engine.host_array((8, 2**18), np.dtype(np.float32))
    assert caught.value.message == (
        "not enough page-locked memory for the queue: 8.0 MiB more can't be had: cuMemHostAlloc failed: out of memory"
    )
    assert "`max_batch`" in caught.value.hint


def test_an_engine_that_never_runs(machine: Machine, tmp_path: Path) -> None:
    found = refusal(write_plan(tmp_path / "m.plan", is_never_run=True))
    assert found.message == (
        f"`{tmp_path / 'm.plan'}` can't be set up on the GPU: Error Code 1: Cuda Runtime (invalid argument)"
    )
    assert (
        found.hint == "`nvidia-smi` shows whether the GPU is well; a plan built again on this node rules the plan out"
    )


def test_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Machine(gpus=0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-gone")
    found = refusal(write_plan(tmp_path / "m.plan"))
    assert found.message == "CUDA does not start: cuInit failed: no CUDA-capable device is detected"
    assert found.hint == f"{DRIVER}; `CUDA_VISIBLE_DEVICES` is `GPU-gone` here"


def test_a_gpu_that_takes_no_context(machine: Machine, tmp_path: Path) -> None:
    machine.crashed = True
    found = refusal(write_plan(tmp_path / "m.plan"))
    assert (
        found.message
        == "GPU 0 can't be used: cuDevicePrimaryCtxRetain failed: an illegal memory access was encountered"
    )
    assert found.hint == DRIVER


def test_no_driver(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")
    monkeypatch.setattr(cuda, "missing", lost)
    found = refusal(write_plan(tmp_path / "m.plan"))
    assert found.message == f"CUDA can't be used here: {lost}"
    assert found.hint == DRIVER


def test_no_pycuda(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "missing", ModuleNotFoundError("No module named 'pycuda'"))
    found = refusal(write_plan(tmp_path / "m.plan"))
    assert found.message == "the engine `tensorrt` needs the package pycuda, which is not there"
    assert found.hint == (
        "`pip install 'nomadserve[tensorrt]'`; pycuda is compiled while it is installed, which needs CUDA's `nvcc` and "
        "a C++ compiler"
    )


def test_no_tensorrt(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    bindings._find.cache_clear()
    assert "needs the package tensorrt" in refusal(write_plan(tmp_path / "m.plan")).message


def test_wrong_wishes_for_a_build_are_named(machine: Machine, tmp_path: Path) -> None:
    model = ModelConfig(name="m", path=str(write_plan(tmp_path / "m.plan")), engine="tensorrt", precision="fp12")
    with pytest.raises(WrongSetting, match=r"the model `m` can't be built like that: Invalid enum value 'fp12'"):
        open_engine(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inputs": [{"name": "x", "shape": []}], "profiles": []},
            "input `x` of {path} is a single number, without a batch",
        ),
        (
            {"inputs": [{"name": "x", "shape": [-1, 4], "dtype": "FP8"}]},
            "input `x` of {path} is FP8, which is not served",
        ),
        (
            {"outputs": [{"name": "y", "shape": [-1, 2], "is_data_dependent": True}]},
            "output `y` of {path} has the shape [-1, 2]: its size depends on the values of the inputs, which is not "
            "served",
        ),
        (
            {"outputs": [{"name": "y", "shape": [1, 2]}]},
            "output `y` of {path} has the shape [1, 2] for 8 rows: its first dimension must be the batch",
        ),
        (
            {"inputs": [{"name": "x", "shape": [-1, 4], "is_shape": True}]},
            "input `x` of {path} is a shape, not data: requests can't carry it",
        ),
        (
            {"outputs": [{"name": "y", "shape": [-1, 2], "location": "HOST"}]},
            "output `y` of {path} is a shape, not data: requests can't carry it",
        ),
        (
            {"inputs": [{"name": "x", "shape": [-1, 4], "format": "CHW4"}]},
            "input `x` of {path} has the layout CHW4, which clients don't speak",
        ),
        (
            {
                "inputs": [{"name": "x", "shape": [-1, 4]}, {"name": "z", "shape": [-1]}],
                "profiles": [{"x": [[1, 4], [1, 4], [2, 4]], "z": [[3], [4], [5]]}],
            },
            "the inputs of {path} have no batch size in common in optimization profile 0",
        ),
    ],
)
def test_what_can_not_be_served_is_named(
    changes: dict[str, Any], message: str, machine: Machine, tmp_path: Path
) -> None:
    path = write_plan(tmp_path / "m.plan", **changes)
    found = refusal(path)
    assert isinstance(found, WrongSetting)
    assert found.message == message.format(path=f"`{path}`")
    assert found.hint
    assert len(machine.streams) == 0, "what is left of it goes in a thread in which no context is current"
    assert machine.problems == []


# -- the real TensorRT-RTX, which needs no GPU to refuse ----------------------------------------------------------


@needs_rtx
def test_a_damaged_plan_meets_the_real_tensorrt(rtx: bindings.Bindings, tmp_path: Path) -> None:
    damaged = Plan(b"\0" * 2000, None, "given", tmp_path / "m.plan")
    with pytest.raises(faults.PlanRefused, match=r"^TensorRT-RTX 1\..* can't load `m`: .*magicTag"):
        faults.deserialized(rtx, damaged, "`m`")


@needs_rtx
@pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU here")
def test_without_a_driver_the_real_tensorrt_blames_no_plan(rtx: bindings.Bindings, tmp_path: Path) -> None:
    plan = plan_for(write_sum_model(tmp_path / "m.onnx"), BuildOptions(compute_capability="8.9"), progress=None)
    with pytest.raises(CannotStart, match=r"can't use the GPU: .*CUDA driver version is insufficient") as caught:
        faults.deserialized(rtx, plan, "`m`")
    assert not isinstance(caught.value, WrongSetting)


@needs_rtx
@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_the_networks_of_the_benchmark_become_plans(rtx: bindings.Bindings, precision: Any, tmp_path: Path) -> None:
    for network in (
        resnet50(tmp_path, size=32, stages=((1, 8), (2, 16))),
        bert_base(tmp_path, layers=1, width=16, heads=4, length=6, words=50),
    ):
        options = BuildOptions(compute_capability="8.9", precision=precision, max_batch=4)
        assert plan_for(network.path, options, progress=None).data
