import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from nomadserve_runtime.lifecycle import Stage
from tests.unit.runtime.asgi import Answer, Bench
from tests.unit.runtime.models import fake_engine


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
    assert ask("GET", "/v2").content == {"name": "svc", "version": "v1", "extensions": []}


def test_model_metadata() -> None:
    assert ask("GET", "/v2/models/m").content == {
        "name": "m",
        "versions": ["v1"],
        "platform": "nomadserve_fake",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    }


@pytest.mark.parametrize("path", ["/v2/health/ready", "/v2/models/m/ready"])
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
        "/v2/models/{name}",
        "/v2/models/{name}/infer",
        "/v2/models/{name}/ready",
    }
    body = paths["/v1/inference"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"inputs", "model", "id", "timeout_ms"}


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
