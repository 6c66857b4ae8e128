"""`nomadserve serve` from outside: a real process, real HTTP on loopback, a tiny ONNX model."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.contract.serve_process import PLAIN, Server, serving
from tests.unit.runtime.models import write_fake, write_sum_model

ROW = {"inputs": {"x": [[1, 2, 3, 4]]}}
TENSOR = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
INFER = "/v2/models/sum/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves an ONNX model: four numbers in; their sum, and their sum plus one, out."""
    folder = tmp_path_factory.mktemp("onnx")
    with serving(folder, str(write_sum_model(folder / "sum.onnx")), "--version", "v7", "--max-batch", "8") as running:
        yield running


# -- what works ---------------------------------------------------------------------------------------------------


def test_plain_inference(server: Server) -> None:
    reply = server.ask("POST", PLAIN, ROW | {"id": "mine"})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.headers["x-nomadserve-version"] == "v7"
    content = reply.content
    assert content.pop("time").endswith("Z")
    assert content == {"id": "mine", "model": "sum", "version": "v7", "outputs": {"y": [[10, 11]]}}


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6, 7, 8], [[1, 2, 3, 4], [5, 6, 7, 8]]])
def test_protocol_inference(data: list[Any], server: Server) -> None:
    tensor = TENSOR | {"shape": [2, 4], "data": data}
    assert server.ask("POST", INFER, {"id": "mine", "inputs": [tensor]}).content == {
        "model_name": "sum",
        "model_version": "v7",
        "id": "mine",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [10, 11, 26, 27]}],
    }


def test_the_command_that_the_log_offers_works(server: Server) -> None:
    line = next(line for line in server.log.read_text().splitlines() if " try: curl " in line)
    body = line.partition("--json '")[2].removesuffix("'")
    assert f"http://127.0.0.1:{server.port}/v1/inference" in line
    assert server.ask("POST", PLAIN, body.encode()).content["outputs"] == {"y": [[0, 1]]}


def test_the_log_says_what_is_served(server: Server) -> None:
    log = server.log.read_text()
    assert f"serving sum v7 on http://127.0.0.1:{server.port}" in log
    assert "onnxruntime, batches of up to 8 rows" in log
    assert "model sum: in x FP32 [batch, 4]" in log
    assert "model sum: out y FP32 [batch, 2]" in log


def test_connections_are_kept(server: Server) -> None:
    connection = server.connect()
    server.ask("POST", PLAIN, ROW, over=connection)
    kept = connection.sock
    for path, status in ((PLAIN, 200), (INFER, 400), ("/v2/models/cat/infer", 404)):
        assert server.ask("POST", path, ROW, over=connection).status == status
    assert connection.sock is kept
    connection.close()


def test_a_chunked_body_is_read(server: Server) -> None:
    connection = server.connect()
    body = json.dumps(ROW).encode()
    connection.request("POST", PLAIN, iter([body[:9], body[9:]]), encode_chunked=True)
    assert json.loads(connection.getresponse().read())["outputs"] == {"y": [[10, 11]]}
    connection.close()


def test_many_clients_at_once_get_each_their_own_answer(server: Server) -> None:
    def client(number: int) -> set[bool]:
        connection = server.connect()
        right = set()
        for step in range(20):
            value = number * 100 + step
            reply = server.ask("POST", PLAIN, {"inputs": {"x": [[value, 0, 0, 0]]}}, over=connection)
            right.add(reply.content["outputs"] == {"y": [[value, value + 1]]})
        connection.close()
        return right

    with ThreadPoolExecutor(16) as pool:
        assert set().union(*pool.map(client, range(16))) == {True}
    assert server.metric('nomadserve_in_flight{model="sum"}') == 0


# -- what is refused; bodies are in `test_bad_inputs` ------------------------------------------------------------------


def rows(count: int) -> list[list[int]]:
    return [[1, 2, 3, 4]] * count


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "reason"),
    [
        ("GET", PLAIN, {}, 405, "method_not_allowed"),
        ("PUT", INFER, {}, 405, "method_not_allowed"),
        ("GET", "/nothing", {}, 404, "not_found"),
        ("POST", PLAIN, {"content-type": "text/csv"}, 415, "unsupported"),
        ("POST", PLAIN, {"content-encoding": "br"}, 415, "unsupported"),
        ("POST", PLAIN, {"content-encoding": "gzip"}, 400, "invalid"),
    ],
)
def test_a_request_of_the_wrong_kind_is_refused_in_words(
    method: str, path: str, headers: dict[str, str], status: int, reason: str, server: Server
) -> None:
    reply = server.ask(method, path, ROW, headers=headers)
    assert (reply.status, reply.content["reason"]) == (status, reason)


def test_the_server_answers_well_after_all_that(server: Server) -> None:
    assert server.ask("POST", PLAIN, ROW).status == 200
    assert server.ask("GET", "/v2/health/ready").status == 200
    assert server.metric('nomadserve_queued_rows{model="sum"}') == 0


# -- metrics ------------------------------------------------------------------------------------------------------


def test_metrics_count_what_was_asked(server: Server) -> None:
    names = [
        'nomadserve_requests_total{model="sum",outcome="ok"}',
        'nomadserve_requests_total{model="sum",outcome="invalid"}',
        'nomadserve_rows_total{model="sum"}',
        'nomadserve_request_seconds_count{model="sum"}',
        'nomadserve_queue_seconds_count{model="sum"}',
        'nomadserve_batch_rows_sum{model="sum"}',
    ]
    before = [server.metric(name) for name in names]
    server.ask("POST", PLAIN, {"inputs": {"x": rows(3)}})
    server.ask("POST", PLAIN, {})
    assert [server.metric(name) - old for name, old in zip(names, before, strict=True)] == [1, 1, 3, 1, 1, 3]


@pytest.mark.parametrize(
    "series",
    [
        *(f'requests_total{{model="sum",outcome="{word}"}}' for word in ("refused", "expired", "failed", "abandoned")),
        *(f'refused_total{{model="sum",reason="{word}"}}' for word in ("queue_full", "draining")),
        'in_flight{model="sum"}',
        'backlog_seconds{model="sum"}',
        'engine_seconds_count{model="sum"}',
    ],
)
def test_the_series_of_the_autoscaler_are_always_there(series: str, server: Server) -> None:
    assert server.metric(f"nomadserve_{series}") >= 0


# -- in a job ------------------------------------------------------------------------------------------------------


def test_a_job_starts_it_by_its_environment_alone(tmp_path: Path) -> None:
    models = [
        {"name": "a", "path": str(write_fake(tmp_path / "a.json")), "engine": "fake"},
        {"name": "b", "path": str(write_sum_model(tmp_path / "b.onnx")), "engine": "onnxruntime", "max_batch": 4},
    ]
    environ = {
        "NOMADSERVE_SERVICE": "two",
        "NOMADSERVE_VERSION": "v2",
        "NOMADSERVE_MODELS": json.dumps(models),
        "NOMAD_ALLOC_ID": "0d3f",
    }
    with serving(tmp_path, **environ) as server:
        metadata = server.ask("GET", "/v2").content
        assert (metadata["name"], metadata["version"]) == ("two", "v2")
        assert {entry["name"] for entry in server.ask("POST", "/v2/repository/index").content} == {"a", "b"}
        assert server.ask("POST", PLAIN, ROW | {"model": "b"}).content["outputs"] == {"y": [[10, 11]]}
        assert server.ask("POST", PLAIN, {"inputs": {"x": [[3]]}, "model": "a"}).content["outputs"] == {"y": [[3]]}
        assert server.ask("POST", "/v2/models/b/infer", {"inputs": [TENSOR]}).content["outputs"][0]["data"] == [10, 11]
        assert "(allocation 0d3f)" in server.log.read_text()
