"""The whole server with the engine `tensorrt`, down to the calls of CUDA, TensorRT and NVML, which are made up."""

import contextlib
import http.client
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.contract.serve_process import PLAIN, Server, serving, until
from tests.unit.runtime.trt.fake_tensorrt_runtime import CRASHES, write_plan

COMMAND = (sys.executable, "-m", "tests.contract.serve_on_a_made_up_gpu", "serve")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with on_gpus(tmp_path) as server:
        yield server


def on_gpus(folder: Path, **environ: str) -> Any:
    plan = write_plan(folder / "m.plan")
    arguments = [str(plan), "--engine", "tensorrt", "--max-batch", "8", "--queue-max", "16"]
    return serving(folder, *arguments, command=COMMAND, **environ)


def test_rows_are_answered_from_the_gpu(server: Server) -> None:
    reply = server.ask("POST", PLAIN, {"inputs": {"x": [[1, 2, 3, 4], [0, 0, 0, 1]]}})
    assert reply.content["outputs"] == {"y": [[10.0, 11.0], [1.0, 2.0]]}
    assert server.ask("GET", "/v2/models/m").content["platform"] == "tensorrt_plan"


def test_binary_rows_too(server: Server) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    head: dict[str, Any] = {"name": "x", "shape": [3, 4], "datatype": "FP32", "parameters": {"binary_data_size": 48}}
    text = json.dumps({"inputs": [head], "parameters": {"binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    reply = server.ask("POST", "/v2/models/m/infer", text + rows.tobytes(), headers=headers)
    answer = reply.body[int(reply.headers["inference-header-content-length"]) :]
    assert np.frombuffer(answer, np.float32).reshape(3, 2)[:, 0].tolist() == rows.sum(axis=1).tolist()


def test_the_driver_is_in_the_metrics(server: Server) -> None:
    assert server.metric('nomadserve_gpu_utilization{gpu="GPU-0"}') == 50
    assert server.metric('nomadserve_cuda_graph_failures_total{model="m"}') == 0


def test_it_drains_and_gives_the_gpu_back(server: Server) -> None:
    server.ask("POST", PLAIN, {"inputs": {"x": [[1, 2, 3, 4]]}})
    server.tell_to_end()
    assert server.wait() == 0
    assert "drained" in server.log.read_text()


def test_two_gpus_answer_side_by_side(tmp_path: Path) -> None:
    with on_gpus(tmp_path, MADE_UP_GPUS="2") as server:
        answers = [
            server.ask("POST", PLAIN, {"inputs": {"x": [[value, 0, 0, 0]] * 8}}).content["outputs"]["y"][7]
            for value in range(20)
        ]
        assert answers == [[value, value + 1] for value in range(20)]
        assert server.metric('nomadserve_gpu_utilization{gpu="GPU-1"}') == 50


def test_when_the_gpu_crashes_everybody_gets_a_500_and_the_process_ends_with_1(server: Server) -> None:
    statuses: list[int] = []

    def ask(connection: http.client.HTTPConnection) -> None:
        body = {"inputs": {"x": [[CRASHES, 0, 0, 0]] * 8}}
        statuses.append(server.ask("POST", PLAIN, body, over=connection).status)

    with contextlib.ExitStack() as connections:
        crowd = []
        for _ in range(6):
            connection = connections.enter_context(contextlib.closing(server.connect()))
            connection.connect()
            crowd.append(threading.Thread(target=ask, args=(connection,)))
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
    # Who comes once it is known that nothing goes any more is sent elsewhere.
    assert len(statuses) == 6
    assert 500 in statuses
    assert set(statuses) <= {500, 503}
    assert server.wait() == 1
    log = server.log.read_text()
    assert "the engine is lost: GPU 0 failed: cu" in log
    assert "an illegal memory access was encountered; ending with exit code 1, to be started anew" in log


def test_the_last_answers_say_what_happened(server: Server) -> None:
    reply = server.ask("POST", PLAIN, {"inputs": {"x": [[CRASHES, 0, 0, 0]]}})
    assert reply.status == 500
    assert "an illegal memory access was encountered" in reply.content["error"]
    until(lambda: server.process.poll() is not None)
    assert server.wait() == 1


def test_rows_of_different_lengths_are_served_side_by_side(tmp_path: Path) -> None:
    plan = write_plan(
        tmp_path / "text.plan",
        inputs=[{"name": "text", "shape": [-1, -1], "dtype": "INT64"}],
        outputs=[{"name": "steps", "shape": [-1, -1]}],
        profiles=[{"text": [[1, 1], [4, 4], [8, 16]]}],
    )
    arguments = [str(plan), "--engine", "tensorrt", "--max-batch", "8"]
    with serving(tmp_path, *arguments, command=COMMAND) as server:
        for length in (1, 5, 16, 3):
            reply = server.ask("POST", PLAIN, {"inputs": {"text": [[1] * length] * 2}})
            assert reply.content["outputs"]["steps"] == [[length + place for place in range(length)]] * 2
        assert server.ask("POST", PLAIN, {"inputs": {"text": [[1] * 17]}}).status == 400
        assert server.ask("GET", "/v2/models/text").content["inputs"][0]["shape"] == [-1, -1]


def test_a_model_can_leave_the_gpu_and_come_back(tmp_path: Path) -> None:
    with on_gpus(tmp_path, NOMADSERVE_REPOSITORY="1", MADE_UP_GPUS="2") as server:
        for _ in range(2):
            reply = server.ask("POST", PLAIN, {"inputs": {"x": [[1, 2, 3, 4]]}})
            assert reply.content["outputs"] == {"y": [[10.0, 11.0]]}
            assert server.ask("POST", "/v2/repository/models/m/unload").status == 200
            assert server.ask("POST", PLAIN, {"inputs": {"x": [[1, 2, 3, 4]]}}).status == 404
            assert server.ask("POST", "/v2/repository/models/m/load").status == 200
        server.tell_to_end()
        assert server.wait() == 0
