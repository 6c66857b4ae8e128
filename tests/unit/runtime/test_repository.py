"""Models come and go while others serve."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from nomadserve_runtime.engine import Engine
from nomadserve_runtime.errors import WrongSetting
from tests.unit.runtime.http import Bench
from tests.unit.runtime.models import GatedEngine, fake_engine

ROW = {"inputs": {"x": [[5]]}}


def run(test: Callable[[Bench], Coroutine[Any, Any, None]], *, is_open: bool = True, **engines: Engine) -> None:
    async def bounded() -> None:
        bench = Bench(is_repository_open=is_open, **(engines or {"a": fake_engine(), "b": fake_engine()}))
        try:
            async with asyncio.timeout(30):
                await test(bench)
        finally:
            bench.close()

    asyncio.run(bounded())


async def states(b: Bench) -> dict[str, str]:
    index = (await b.client("POST", "/v2/repository/index")).content
    return {entry["name"]: entry["state"] for entry in index}


def test_an_unloaded_model_is_gone_from_every_route_and_comes_back() -> None:
    async def test(b: Bench) -> None:
        assert (await b.client("POST", "/v2/repository/models/b/unload")).status == 200
        assert await states(b) == {"a": "READY", "b": "UNAVAILABLE"}
        for method, path in (("GET", "/v2/models/b"), ("GET", "/v2/models/b/ready"), ("POST", "/v2/models/b/infer")):
            gone = await b.client(method, path)
            assert (gone.status, gone.content["error"]) == (404, "the model `b` is not loaded")
        # With one model left, a plain request need not name it.
        assert (await b.client("POST", "/v1/inference", ROW)).content["model"] == "a"
        assert (await b.client("POST", "/v2/repository/models/b/load")).status == 200
        assert await states(b) == {"a": "READY", "b": "READY"}
        assert (await b.client("POST", "/v1/inference", ROW | {"model": "b"})).content["outputs"] == {"y": [[5]]}

    run(test)


def test_unloading_answers_what_is_in_before_it_closes_the_model() -> None:
    async def test(b: Bench) -> None:
        asked = asyncio.create_task(b.client("POST", "/v1/inference", ROW))
        batcher = b.models["a"].batcher
        while not batcher.running_rows:
            await asyncio.sleep(0.001)
        unloading = asyncio.create_task(b.client("POST", "/v2/repository/models/a/unload"))
        while (await states(b))["a"] != "UNLOADING":
            await asyncio.sleep(0.001)
        engine.let_run(1)
        assert (await asked).status == 200
        assert (await unloading).status == 200
        assert await states(b) == {"a": "UNAVAILABLE"}
        nothing = await b.client("POST", "/v1/inference", ROW)
        assert (nothing.status, nothing.content["error"]) == (404, "no model is loaded")

    engine = GatedEngine()
    run(test, a=engine)


def test_loading_what_is_loaded_and_unloading_what_is_not_changes_nothing() -> None:
    async def test(b: Bench) -> None:
        before = b.repository.models["a"]
        assert (await b.client("POST", "/v2/repository/models/a/load")).status == 200
        assert b.repository.models["a"] is before
        for _ in range(2):
            assert (await b.client("POST", "/v2/repository/models/a/unload")).status == 200

    run(test)


def test_a_model_that_does_not_load_says_why_and_others_serve_on() -> None:
    async def test(b: Bench) -> None:
        def broken(name: str) -> Engine:
            raise WrongSetting(f"no file for {name}")

        await b.client("POST", "/v2/repository/models/b/unload")
        b.repository._open_model = broken
        failed = await b.client("POST", "/v2/repository/models/b/load")
        assert (failed.status, failed.content) == (400, {"error": "no file for b", "reason": "invalid"})
        index = (await b.client("POST", "/v2/repository/index")).content
        assert index[1] == {"name": "b", "version": "v1", "state": "UNAVAILABLE", "reason": "no file for b"}
        assert (await b.client("POST", "/v2/models/a/infer", b"{}")).status == 400

    run(test)


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_only_models_of_the_configuration_and_only_where_allowed(verb: str) -> None:
    async def unknown(b: Bench) -> None:
        assert (await b.client("POST", f"/v2/repository/models/cat/{verb}")).status == 404

    async def forbidden(b: Bench) -> None:
        answer = await b.client("POST", f"/v2/repository/models/a/{verb}")
        assert (answer.status, answer.content["reason"]) == (403, "forbidden")
        assert await states(b) == {"a": "READY", "b": "READY"}

    run(unknown)
    run(forbidden, is_open=False)


def test_the_gauges_of_an_unloaded_model_are_zero_and_its_counters_stay() -> None:
    async def test(b: Bench) -> None:
        await b.client("POST", "/v1/inference", ROW)
        await b.client("POST", "/v2/repository/models/a/unload")
        assert b.series.registry.get_sample_value("nomadserve_in_flight", {"model": "a"}) == 0
        assert b.counted("ok", model="a") == 1

    run(test, a=fake_engine())
