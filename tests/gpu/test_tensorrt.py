"""The engine `tensorrt` for real: the same suite as on the made-up GPU, then what only a GPU can tell.

.venv/bin/python -m pytest tests/gpu      in an environment with tensorrt or tensorrt_rtx, pycuda and onnxruntime
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from benchmarks.gpu.correctness import compare, right_answers
from benchmarks.gpu.networks import bert_base, resnet50
from nomadserve_runtime import gpu
from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.engine import open_engine, slot_for
from nomadserve_runtime.engines.trt.engine import GRAPHS, TrtEngine
from nomadserve_runtime.errors import WrongSetting
from tests.contract.serve_process import PLAIN, serving
from tests.gpu.here import needs_gpu
from tests.unit.runtime.engine_suite import EngineSuite
from tests.unit.runtime.models import write_sum_model

pytestmark = needs_gpu


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are kept for this run, not beyond it."""
    monkeypatch.setenv("NOMADSERVE_ENGINE_CACHE", str(tmp_path_factory.getbasetemp() / "plans"))


def opened(path: Path, *, max_batch: int = 8, **more: Any) -> TrtEngine:
    engine = open_engine(ModelConfig(name="m", path=str(path), engine="tensorrt", max_batch=max_batch, **more))
    assert isinstance(engine, TrtEngine)
    return engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[TrtEngine]:
    engine = opened(write_sum_model(tmp_path / "sum.onnx"), precision="fp32")
    yield engine
    engine.close()


class TestTensorRT(EngineSuite):
    def test_an_engine_can_be_closed(self, engine: TrtEngine) -> None:  # type: ignore[override]
        """The fixture does; twice is once too often."""


def test_every_batch_size_runs_as_a_graph(engine: TrtEngine) -> None:
    assert engine.graph_failures == 0


def test_with_and_without_graphs_the_answers_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sum_model(tmp_path / "sum.onnx")
    answers = []
    for value in ("1", "0"):
        monkeypatch.setenv(GRAPHS, value)
        engine = opened(path, precision="fp32")
        slot = slot_for(engine)
        slot.inputs[0][:] = np.arange(32).reshape(8, 4)
        engine.run(slot, 8)
        answers.append(slot.outputs[0].tolist())
        engine.close()
    assert answers[0] == answers[1]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
@pytest.mark.parametrize("name", ["resnet50", "bert_base"])
def test_answers_are_those_of_onnx_runtime(name: str, precision: str, tmp_path: Path) -> None:
    if name == "resnet50":
        network = resnet50(tmp_path, size=64, stages=((2, 32), (2, 64)))
    else:
        network = bert_base(tmp_path, layers=3, width=64, heads=4, length=16, words=500)
    engine = opened(network.path, precision=precision)
    found = compare(engine, network, precision=precision, right=right_answers(network, rows=8))
    engine.close()
    assert found.is_right, found


@pytest.mark.parametrize(
    ("kind", "datatype"),
    [
        (TensorProto.INT32, "INT32"),
        (TensorProto.INT64, "INT64"),
        (TensorProto.FLOAT16, "FP16"),
        (TensorProto.BOOL, "BOOL"),
    ],
)
def test_numbers_of_all_kinds_pass(kind: int, datatype: str, tmp_path: Path) -> None:
    engine = opened(write_sum_model(tmp_path / "m.onnx", kind=kind), precision="fp32")
    assert [spec.datatype for spec in (*engine.inputs, *engine.outputs)] == [datatype, datatype]
    slot = slot_for(engine)
    slot.inputs[0][:] = 1
    engine.run(slot, 2)
    assert slot.outputs[0][:2].tolist() == ([[True, True]] * 2 if datatype == "BOOL" else [[4, 5]] * 2)
    engine.close()


def test_instances_answer_side_by_side(tmp_path: Path) -> None:
    engine = opened(write_sum_model(tmp_path / "sum.onnx"), precision="fp32", instances=2)
    slots = [slot_for(engine) for _ in range(4)]
    for value, slot in enumerate(slots):
        slot.inputs[0][:] = value
        engine.run(slot, 8)
    assert [slot.outputs[0][7, 0] for slot in slots] == [4 * value for value in range(4)]
    engine.close()


def test_a_damaged_plan_is_refused_with_the_words_of_tensorrt(tmp_path: Path) -> None:
    path = tmp_path / "m.plan"
    path.write_bytes(b"\x00" * 1000)
    with pytest.raises(WrongSetting, match="can't load") as caught:
        opened(path)
    assert "build it again" in caught.value.hint


def test_the_driver_tells_of_the_gpus() -> None:
    sampler = gpu.start_sampling(os.environ)
    assert sampler is not None
    sampler.close()
    assert sampler.readings
    for reading in sampler.readings:
        assert reading.gpu.startswith(gpu.UUID_STARTS)
        assert reading.memory_total_bytes


def test_the_whole_server_answers(tmp_path: Path) -> None:
    path = write_sum_model(tmp_path / "m.onnx")
    with serving(tmp_path, str(path), "--engine", "tensorrt") as server:
        reply = server.ask("POST", PLAIN, {"inputs": {"x": [[1, 2, 3, 4]]}})
        assert reply.content["outputs"] == {"y": [[10.0, 11.0]]}
        server.tell_to_end()
        assert server.wait() == 0
