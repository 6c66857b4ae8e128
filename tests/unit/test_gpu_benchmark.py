"""The benchmark on a GPU is not run by the tests; all of it that needs none is, on small networks and a made-up GPU."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import bare
from benchmarks.gpu.bare import Bare
from benchmarks.gpu.correctness import Difference, compare, right_answers
from benchmarks.gpu.load import request_of
from benchmarks.gpu.networks import Network, bert_base, resnet50
from benchmarks.gpu.report import Line, Result, text
from benchmarks.gpu.serving import Served
from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.engine import Engine, open_engine
from nomadserve_runtime.engines.trt import engine
from nomadserve_runtime.engines.trt.cache import Plan
from nomadserve_runtime.engines.trt.engine import GRAPHS
from nomadserve_runtime.wire import ModelWire
from tests.unit.runtime.models import write_sum_model
from tests.unit.runtime.trt.fake_cuda import Machine
from tests.unit.runtime.trt.fake_tensorrt_runtime import write_plan
from tests.unit.runtime.trt.gpu import opening, plug_in


def small_resnet(folder: Path) -> Network:
    return resnet50(folder, size=32, stages=((1, 8), (2, 16)))


def small_bert(folder: Path) -> Network:
    return bert_base(folder, layers=2, width=16, heads=4, length=6, words=50)


@pytest.mark.parametrize(("make", "shape"), [(small_resnet, (3, 1000)), (small_bert, (3, 16))])
def test_the_networks_are_whole_and_run(make: object, shape: tuple[int, ...], tmp_path: Path) -> None:
    assert callable(make)
    network = make(tmp_path)
    onnx.checker.check_model(str(network.path), full_check=True)
    right = right_answers(network, rows=3)
    assert right.shape == shape
    assert np.isfinite(right).all()
    assert right.std() > 0.01


def test_a_mask_hides_words(tmp_path: Path) -> None:
    network = small_bert(tmp_path)
    ids, _ = network.rows
    session = onnxruntime.InferenceSession(str(network.path), providers=["CPUExecutionProvider"])
    mask = np.array([[1, 1, 1, 0, 0, 0]])
    other = ids[:1].copy()
    other[0, 4] = (other[0, 4] + 1) % 50
    answers = [session.run(None, {"ids": words, "mask": mask})[0] for words in (ids[:1], other)]
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


def ort(network: Network) -> Engine:
    return open_engine(ModelConfig(name="m", path=str(network.path), max_batch=4))


@pytest.mark.parametrize("make", [small_resnet, small_bert])
def test_right_answers_are_found_right_and_wrong_ones_wrong(make: object, tmp_path: Path) -> None:
    assert callable(make)
    network = make(tmp_path)
    right = right_answers(network, rows=4)
    assert compare(ort(network), network, precision="fp32", right=right).is_right
    assert not compare(ort(network), network, precision="bf16", right=np.roll(right, 1, axis=0)).is_right


def test_the_bare_engine_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "WARM_UP_S", 0.01)
    machine = Machine(gpus=2)
    plug_in(monkeypatch, machine)
    network = Network("sums", tmp_path, (np.ones((3, 4), np.float32),))
    with opening(machine, write_plan(tmp_path / "m.plan")) as opened:
        for is_pinned in (True, False):
            found = bare.measure(opened, network, rows=8, seconds=0.05, is_pinned=is_pinned)
            assert found.rows_per_s > 0
            assert found.batch_ms > 0


@pytest.mark.parametrize("rows", [1, 5])
def test_requests_are_what_the_server_reads(rows: int, tmp_path: Path) -> None:
    network = small_bert(tmp_path)
    asked = ort(network)
    wire = ModelWire("m", version="v1", inputs=asked.inputs, outputs=asked.outputs, rows_max=8)
    head, _, body = request_of(network, ["ids", "mask"], model="m", rows=rows).partition(b"\r\n\r\n")
    fields = dict(line.split(": ") for line in head.decode().splitlines()[1:])
    assert int(fields["content-length"]) == len(body)
    query = wire.decode_binary(body, json_nbytes=int(fields["inference-header-content-length"]))
    assert [array.tolist() for array in query.inputs] == [array[:rows].tolist() for array in network.rows]


def test_the_report_says_what_was_met() -> None:
    line = Line(64, Bare(1000, 64.0), Bare(900, 70.0), Bare(500, 90.0))
    served = {1: Served(960, 10.0, 20.0, 55.0, 60.0, 0)}
    results = [
        Result("resnet50", "fp16", Difference(0.001, 0.03), (line,), served),
        Result("bert_base", "tf32", Difference(0.5, 0.02), (line,), served),
    ]
    found = text(results, machine="1 × H200")
    assert "### resnet50, fp16: right" in found
    assert "### bert_base, tf32: WRONG" in found
    assert "| 1 | 960 | 96% | 10.00 | 20.00 | 55 | 60.0 | 0 |" in found
    assert "| share of the bare engine, ResNet-50 FP16 | ≥ 0.95 | 0.960 | met |" in found
    assert "| CPU µs a request | ≤ 60 | 55 | met |" in found


def test_a_whole_run_ends_with_a_report_and_all_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a made-up GPU, whose plans compute what the model does; the server's part is in `tests/contract`."""
    plug_in(monkeypatch, Machine())
    monkeypatch.setattr(bare, "WARM_UP_S", 0.01)
    monkeypatch.setenv(GRAPHS, "1")
    plan = Plan(write_plan(tmp_path / "m.plan").read_bytes(), None, "given", tmp_path / "m.plan")
    monkeypatch.setattr(engine, "plan_for", lambda *_, **__: plan)
    network = Network("sums", write_sum_model(tmp_path / "sum.onnx"), (np.ones((8, 4), np.float32),))
    monkeypatch.setitem(command.NETWORKS, "resnet50", lambda folder: network)
    served = {1: Served(1.0, 2.0, 3.0, 4.0, 5.0, 0)}
    monkeypatch.setattr(command, "served_by", lambda *_, **__: served)
    arguments = ["--network", "resnet50", "--precision", "fp16", "--max-batch", "4", "--seconds", "0.02"]
    done = CliRunner().invoke(command.main, [*arguments, "--output", str(tmp_path / "out" / "results.json")])
    assert done.exit_code == 0, done.output
    assert "1 × Fake GPU, TensorRT 10.13.0.35" in done.output
    assert "### resnet50, fp16: right" in done.output
    assert "| share of the bare engine, ResNet-50 FP16 |" in done.output
    (result,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [line["rows"] for line in result["lines"]] == [1, 2, 4]
    assert result["served"] == {"1": dataclasses.asdict(served[1])}


def test_without_a_gpu_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Machine(gpus=0))
    done = CliRunner().invoke(command.main, [])
    assert done.exit_code == 1
    assert "CUDA does not start: cuInit failed: no CUDA-capable device is detected\nhint: " in done.output
