"""The part of the GPU benchmark that talks to a server, with a real server on a made-up GPU."""

import sys
from pathlib import Path

import numpy as np

from benchmarks.gpu.__main__ import served_by
from benchmarks.gpu.networks import Network
from nomadserve_runtime.config import ModelConfig
from tests.unit.runtime.trt.fake_tensorrt_runtime import write_plan


def test_clients_are_answered_and_counted(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "m.plan")
    network = Network("sums", plan, (np.ones((3, 4), np.float32),))
    command = [sys.executable, "-m", "tests.contract.serve_on_a_made_up_gpu", "serve"]
    model = ModelConfig(name="sums", path=str(plan), engine="tensorrt", max_batch=8)
    served = served_by(command, network, model, connections=6, processes=2, seconds=0.5)
    assert list(served) == [1, 8]
    for found in served.values():
        assert found.failed == 0
        assert found.rows_per_s > 0
        assert 0 < found.p50_ms <= found.p99_ms
        assert found.cpu_us > 0
        assert found.batch_rows >= 1
