import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from nomadserve_runtime.describe import version_number
from nomadserve_runtime.lifecycle import Stage
from tests.unit.runtime.http import Answer, Bench
from tests.unit.runtime.models import GatedEngine, fake_engine


def ask(method: str, path: str, *, stage: Stage = Stage.SERVING) -> Answer:
    async def asked() -> Answer:
        bench = Bench(m=fake_engine())
        try:
            bench.lifecycle.stage = stage
            return await bench.client(method, path)
        finally:
            bench.close()

    return asyncio.run(asked())


def test_server_metadata() -> None:
    assert ask("GET", "/v2").content == {
        "name": "svc",
        "version": "v1",
        "extensions": ["binary_tensor_data", "model_configuration", "schedule_policy", "statistics"],
    }


@pytest.mark.parametrize("path", ["/v2/models/m", "/v2/models/m/versions/v1", "/v2/models/m/versions/1"])
def test_model_metadata(path: str) -> None:
    assert ask("GET", path).content == {
        "name": "m",
        "versions": ["v1"],
        "platform": "nomadserve_fake",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    }


def test_model_configuration_in_the_words_that_perf_analyzer_reads() -> None:
    assert ask("GET", "/v2/models/m/config").content == {
        "name": "m",
        "platform": "nomadserve_fake",
        "backend": "nomadserve",
        "max_batch_size": 4,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [1]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [1]}],
        "instance_group": [{"count": 1}],
        "dynamic_batching": {"preferred_batch_size": [4], "max_queue_delay_microseconds": 0},
        "response_cache": {"enable": False},
        "model_transaction_policy": {"decoupled": False},
    }


@pytest.mark.parametrize(
    "path",
    ["/v2/models/m/stats", "/v2/models/m/versions/v1/stats", "/v2/models/stats", "/v2/models/m/versions/1/stats"],
)
def test_statistics_begin_at_zero(path: str) -> None:
    (stats,) = ask("GET", path).content["model_stats"]
    assert (stats["name"], stats["version"]) == ("m", "1")
    assert (stats["inference_count"], stats["execution_count"]) == (0, 0)
    assert set(stats["inference_stats"]) == {
        *("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    }
    assert all(part == {"count": 0, "ns": 0} for part in stats["inference_stats"].values())


@pytest.mark.parametrize(("version", "number"), [("v7", "7"), ("2026-11", "2026"), ("dev", "1"), ("3", "3")])
def test_a_version_as_a_number(version: str, number: str) -> None:
    assert version_number(version) == number


def test_the_index_lists_the_models() -> None:
    assert ask("POST", "/v2/repository/index").content == [
        {"name": "m", "version": "v1", "state": "READY", "reason": ""}
    ]


@pytest.mark.parametrize("path", ["/v2/health/ready", "/v2/models/m/ready", "/v2/models/m/versions/v1/ready"])
@pytest.mark.parametrize(("stage", "status"), [(Stage.SERVING, 200), (Stage.LEAVING, 503), (Stage.DRAINING, 503)])
def test_ready_only_while_serving(path: str, stage: Stage, status: int) -> None:
    answer = ask("GET", path, stage=stage)
    assert (answer.status, answer.content["ready"]) == (status, status == 200)


@pytest.mark.parametrize("stage", Stage)
def test_live_to_the_end(stage: Stage) -> None:
    assert ask("GET", "/v2/health/live", stage=stage).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/v2/models/cat", 404, "no model `cat` is served here, but `m`"),
        ("GET", "/v2/models/cat/ready", 404, "no model `cat` is served here, but `m`"),
        ("POST", "/v2/models/cat/infer", 404, "no model `cat` is served here, but `m`"),
        ("GET", "/v2/models/m/versions/v2", 404, "the model `m` is here in version `v1`, not `v2`"),
        ("POST", "/v2/models/m/versions/v2/infer", 404, "the model `m` is here in version `v1`, not `v2`"),
        ("GET", "/v2/models/cat/config", 404, "no model `cat` is served here, but `m`"),
        ("GET", "/v2/models/cat/stats", 404, "no model `cat` is served here, but `m`"),
        ("GET", "/v2/repository/index", 405, "Method Not Allowed"),
        ("GET", "/v3", 404, "there is nothing at `/v3`"),
        ("GET", "/v1/inference", 405, "Method Not Allowed"),
        ("POST", "/v2", 405, "Method Not Allowed"),
    ],
)
def test_what_is_not_there_says_so(method: str, path: str, status: int, error: str) -> None:
    answer = ask(method, path)
    assert (answer.status, answer.content["error"]) == (status, error)
    assert answer.content["reason"] == {404: "not_found", 405: "method_not_allowed"}[status]


@pytest.mark.parametrize("path", ["/v2", "/v2/models/cat", "/v3", "/metrics", "/schema/openapi.json"])
def test_every_reply_carries_the_version(path: str) -> None:
    assert ask("GET", path).headers["x-nomadserve-version"] == "v1"


def test_metrics_are_in_the_prometheus_text_format() -> None:
    answer = ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'nomadserve_queued_rows{model="m"} 0.0' in answer.body.decode()


def test_the_schema_describes_every_route() -> None:
    paths = ask("GET", "/schema/openapi.json").content["paths"]
    assert set(paths) == {
        "/metrics",
        "/v1/inference",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/stats",
        "/v2/repository/index",
        "/v2/repository/models/{name}/load",
        "/v2/repository/models/{name}/unload",
        *(
            f"/v2/models/{{name}}{version}{route}"
            for version in ("", "/versions/{version}")
            for route in ("", "/infer", "/ready", "/config", "/stats")
        ),
    }


@pytest.mark.parametrize("path", ["/v1/inference", "/v2/models/{name}/infer"])
def test_the_schema_says_what_inference_takes_and_gives(path: str) -> None:
    operation = ask("GET", "/schema/openapi.json").content["paths"][path]["post"]
    assert set(operation["responses"]) == {"200", "400", "404", "408", "413", "415", "500", "503", "504"}
    error = operation["responses"]["503"]["content"]["application/json"]["schema"]
    assert set(error["properties"]) == {"error", "reason", "retry_after_ms"}
    assert "retry-after" in operation["responses"]["503"]["headers"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    reply = operation["responses"]["200"]["content"]["application/json"]["schema"]
    if path == "/v1/inference":
        assert set(body["properties"]) == {"inputs", "model", "id", "timeout_ms", "priority"}
        assert set(reply["properties"]) == {"id", "model", "version", "time", "outputs"}
    else:
        assert set(body["properties"]) == {"inputs", "id", "outputs", "parameters"}
        assert set(reply["properties"]) == {"model_name", "model_version", "id", "outputs"}
        assert "application/octet-stream" in operation["requestBody"]["content"]
    assert "x-nomadserve-timeout-ms" in {parameter["name"] for parameter in operation["parameters"]}


def test_the_pages_for_people_are_there() -> None:
    assert ask("GET", "/schema").headers["content-type"].startswith("text/html")


def test_a_reply_closes_its_connection_once_the_replica_is_leaving() -> None:
    async def asked(stage: Stage) -> Answer:
        bench = Bench(m=fake_engine())
        try:
            bench.lifecycle.stage = stage
            return await bench.client("POST", "/v1/inference", {"inputs": {"x": [[1]]}})
        finally:
            bench.close()

    def connection(stage: Stage) -> str | None:
        run: Callable[[Coroutine[Any, Any, Answer]], Answer] = asyncio.run
        return run(asked(stage)).headers.get("connection")

    assert connection(Stage.SERVING) is None
    assert connection(Stage.LEAVING) == "close"


def test_it_tells_when_the_last_one_who_waited_for_the_engine_has_a_reply() -> None:
    async def test() -> list[bool]:
        engine = GatedEngine(batch_max=1)
        bench, told = Bench(m=engine), []
        try:
            bench.app.when_idle(lambda: told.append(bench.app.is_idle()))
            body = {"inputs": {"x": [[5]]}}
            asked = [asyncio.create_task(bench.client("POST", "/v1/inference", body)) for _ in range(3)]
            async with asyncio.timeout(20):
                while not engine.batches:
                    await asyncio.sleep(0.001)
            assert not bench.app.is_idle()
            engine.let_run(3)
            assert [answer.status for answer in await asyncio.gather(*asked)] == [200] * 3
        finally:
            bench.close()
        return told

    assert asyncio.run(test()) == [True]
