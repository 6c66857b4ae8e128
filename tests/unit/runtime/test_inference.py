import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from nomadserve_runtime import calls, inference
from nomadserve_runtime.interpreter import PATIENT_S, SWITCH_S
from nomadserve_runtime.pace import Pace
from tests.unit.runtime.http import Bench, pieces_of
from tests.unit.runtime.models import GatedEngine, fake_engine

ONE_ROW = {"inputs": {"x": [[5]]}}
ONE_TENSOR = {"inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP32", "data": [5, 6]}]}
PLAIN, INFER = "/v1/inference", "/v2/models/m/infer"


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


@contextlib.contextmanager
def bench(**options: Any) -> Iterator[Bench]:
    on_bench = Bench(**(options if set(options) - {"queue_max", "timeout_s"} else {"m": fake_engine(), **options}))
    try:
        yield on_bench
    finally:
        on_bench.close()


async def until(claim: Callable[[], bool]) -> None:
    while not claim():
        await asyncio.sleep(0.001)


def test_a_plain_request_is_answered() -> None:
    async def test() -> None:
        with bench() as b:
            answer = await b.client("POST", PLAIN, ONE_ROW | {"id": "a7"})
            assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
            assert answer.headers["x-nomadserve-version"] == "v1"
            assert answer.headers["content-length"] == str(len(answer.body))
            content = answer.content
            assert content.pop("time").endswith("Z")
            assert content == {"id": "a7", "model": "m", "version": "v1", "outputs": {"y": [[5]]}}
            assert b.counted("ok") == 1

    run(test)


def test_a_protocol_request_is_answered() -> None:
    async def test() -> None:
        with bench() as b:
            answer = await b.client("POST", INFER, ONE_TENSOR)
            assert answer.status == 200
            assert answer.content["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [5, 6]}]
            assert b.series.registry.get_sample_value("nomadserve_rows_total", {"model": "m"}) == 2

    run(test)


def test_requests_without_an_id_get_one_each() -> None:
    async def test() -> None:
        with bench() as b:
            ids = {(await b.client("POST", PLAIN, ONE_ROW)).content["id"] for _ in range(3)}
            assert len(ids) == 3
            assert "" not in ids

    run(test)


def test_a_body_in_pieces_is_put_together() -> None:
    async def test() -> None:
        with bench() as b:
            assert (await b.client("POST", PLAIN, ONE_ROW, chunks=7)).content["outputs"] == {"y": [[5]]}

    run(test)


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"content-type": "text/csv"}, 415, "unsupported"),
        ({"content-type": "application/octet-stream"}, 415, "unsupported"),
        ({"content-encoding": "br"}, 415, "unsupported"),
        ({"inference-header-content-length": "7"}, 415, "unsupported"),
        ({"content-length": str(10**12)}, 413, "too_large"),
    ],
)
def test_a_head_that_says_enough_is_refused_by_itself(headers: dict[str, str], status: int, reason: str) -> None:
    async def test() -> None:
        with bench() as b:
            answer = await b.client("POST", PLAIN, ONE_ROW, headers=headers)
            assert (answer.status, answer.content["reason"]) == (status, reason)
            assert b.counted("invalid") == 1

    run(test)


@pytest.mark.parametrize("content_type", ["", "application/json; charset=utf-8", "application/x-www-form-urlencoded"])
def test_what_curl_and_browsers_call_json_is_read(content_type: str) -> None:
    async def test() -> None:
        with bench() as b:
            assert (await b.client("POST", PLAIN, ONE_ROW, headers={"content-type": content_type})).status == 200

    run(test)


def test_a_body_that_grows_too_long_is_refused_on_the_way() -> None:
    async def test() -> None:
        with bench() as b:
            answer = await b.client("POST", PLAIN, b" " * 200_000, headers={"content-length": ""}, chunks=10)
            assert (answer.status, answer.content["reason"]) == (413, "too_large")

    run(test)


def test_a_full_queue_refuses_before_the_body_is_read() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        with bench(m=engine, queue_max=1) as b:
            asked = []
            batcher = b.models["m"].batcher
            for _ in range(3):
                asked.append(asyncio.create_task(b.client("POST", PLAIN, ONE_ROW)))
                await until(lambda: batcher.in_flight == len(asked))
            connection, wire = b.client.connect()
            head, *_ = pieces_of("POST", PLAIN, b"{}", {})
            connection.data_received(head)  # and no body
            await until(lambda: bool(wire.written))
            refused = wire.take_answer()
            assert refused is not None
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert refused.content == {"error": "the queue is full", "reason": "queue_full", "retry_after_ms": 1000}
            assert b.counted("refused") == 1
            engine.let_run(3)
            assert [answer.status for answer in await asyncio.gather(*asked)] == [200, 200, 200]

    run(test)


def test_a_request_expires_by_its_own_deadline_or_by_that_of_the_service() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        with bench(m=engine, timeout_s=0.5) as b:
            running = [asyncio.create_task(b.client("POST", PLAIN, ONE_ROW)) for _ in range(2)]
            await until(lambda: b.models["m"].batcher.running_rows == 2)
            late = await asyncio.gather(
                b.client("POST", PLAIN, ONE_ROW | {"timeout_ms": 200}),
                b.client("POST", INFER, ONE_TENSOR | {"id": "1"}),
            )
            # The second one has two rows, which this engine never takes at once.
            assert [(answer.status, answer.content["reason"]) for answer in late] == [
                (504, "deadline"),
                (400, "invalid"),
            ]
            default = await b.client("POST", PLAIN, ONE_ROW | {"timeout_ms": 60_000})
            assert (default.status, default.content["reason"]) == (504, "deadline")
            assert b.counted("expired") == 2
            engine.let_run(2)
            await asyncio.gather(*running)

    run(test)


def test_a_client_that_hangs_up_frees_its_rows() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        with bench(m=engine) as b:
            batcher = b.models["m"].batcher
            asked = [asyncio.create_task(b.client("POST", PLAIN, ONE_ROW)) for _ in range(3)]
            await until(lambda: (batcher.running_rows, batcher.queued_rows) == (2, 1))
            b.client.hang_up()
            await until(lambda: (batcher.in_flight, batcher.queued_rows) == (0, 0))
            await asyncio.gather(*asked)
            assert b.counted("abandoned") == 3
            engine.let_run(2)

    run(test)


def test_an_engine_that_fails_is_a_500_with_its_reason() -> None:
    async def test() -> None:
        with bench(m=fake_engine(fail_on=5)) as b:
            answer = await b.client("POST", PLAIN, ONE_ROW)
            assert answer.status == 500
            assert answer.content == {"error": "the engine failed: a row starts with 5", "reason": "failed"}
            assert b.counted("failed") == 1

    run(test)


def test_our_own_bug_is_a_500_that_tells_the_client_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        with bench() as b, pytest.MonkeyPatch.context() as patch:
            patch.setattr(calls.PlainForm, "encode", lambda *_: 1 / 0)
            answer = await b.client("POST", PLAIN, ONE_ROW)
            assert (answer.status, answer.content) == (500, {"error": "internal error", "reason": "failed"})
            assert (b.counted("failed"), b.models["m"].batcher.in_flight) == (1, 0)

    with caplog.at_level(logging.ERROR, "nomadserve"):
        run(test)
    assert "ZeroDivisionError" in caplog.text


def test_the_body_names_the_model_where_there_are_several() -> None:
    async def test() -> None:
        with bench(a=fake_engine(), b=fake_engine(outputs=[{"name": "z", "shape": [1]}])) as b:
            assert (await b.client("POST", PLAIN, ONE_ROW | {"model": "b"})).content["outputs"] == {"z": [[5]]}
            unnamed = await b.client("POST", PLAIN, ONE_ROW)
            assert unnamed.status == 400
            assert unnamed.content["error"] == "several models are served here, so `model` must name one of `a`, `b`"
            unknown = await b.client("POST", PLAIN, ONE_ROW | {"model": "c"})
            assert (unknown.status, unknown.content["reason"]) == (404, "not_found")
            assert (b.counted("ok", model="a"), b.counted("ok", model="b")) == (0, 1)

    run(test)


def test_every_reply_tells_how_long_it_took_whatever_it_says() -> None:
    async def test() -> None:
        with bench(m=fake_engine(fail_on=666), timeout_s=5) as b:
            replies = [
                await b.client("POST", PLAIN, ONE_ROW),
                await b.client("POST", PLAIN, b"[1, 2"),
                await b.client("POST", PLAIN, {"inputs": {"x": [[666]]}}),
                await b.client("GET", "/v2/health/live"),
                await b.client("GET", "/nowhere"),
            ]
            b.models["m"].batcher.start_draining()
            replies.append(await b.client("POST", PLAIN, ONE_ROW))
            assert [reply.status for reply in replies] == [200, 400, 500, 200, 404, 503]
            assert all("dur=" in reply.headers["server-timing"] for reply in replies)

    run(test)


def test_a_request_that_met_a_backlog_is_told_how_long_it_would_take_at_most() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=2)
        with bench(m=engine, queue_max=8) as b:
            batcher = b.models["m"].batcher
            batcher.pace = Pace((500.0, 1000.0), parallel=1, clock=time.monotonic)
            asked = []
            for _ in range(5):  # the first batch of one is with the engine, the second full one behind it
                asked.append(asyncio.create_task(b.client("POST", PLAIN, ONE_ROW)))
                await asyncio.sleep(0.01)
            engine.let_run(10)
            timings = [reply.headers["server-timing"] for reply in await asyncio.gather(*asked)]
            told = [timing.partition(", predicted;dur=")[2] for timing in timings]
            assert told[0] == ""
            # At 500 s a row, those included that may still join its batch.
            assert told[1] == ""
            assert [round(float(ms) / 1e3, -2) for ms in told[2:]] == [1500, 2500, 2500]


def test_what_is_told_counts_from_the_head_of_the_request_as_its_total_does() -> None:
    async def test() -> None:
        engine = GatedEngine(batch_max=1)
        with bench(m=engine, queue_max=8) as b:
            batcher = b.models["m"].batcher
            batcher.pace = Pace((0.25,), parallel=1, clock=time.monotonic)
            asked = [asyncio.create_task(b.client("POST", PLAIN, ONE_ROW)) for _ in range(3)]
            await until(lambda: batcher.in_flight == 3 and batcher.queued_rows == 1)
            [late] = batcher._queued()
            assert isinstance(late, inference.Call)
            late.arrived_at -= 1000.0  # its body took so long to come
            engine.let_run(10)
            timing = [reply.headers["server-timing"] for reply in await asyncio.gather(*asked)][-1]
            milliseconds = dict(part.split(";dur=") for part in timing.split(", "))
            assert float(milliseconds["predicted"]) / 1e3 == pytest.approx(late.answer_by - late.arrived_at, abs=0.001)
            assert 1000 < float(milliseconds["predicted"]) / 1e3 < 1100 < 2 * float(milliseconds["total"]) / 1e3

    run(test)


def test_of_long_bodies_one_is_read_in_a_turn_of_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "LONG_NBYTES_MIN", 10)

    async def test() -> None:
        with bench(m=fake_engine(batch_max=8)) as b:
            turn, seen = 0, []
            decode = inference.PLAIN.decode

            def count() -> None:
                nonlocal turn
                turn += 1
                asyncio.get_running_loop().call_soon(count)

            def noted(*what: Any) -> Any:
                seen.append(turn)
                return decode(*what)

            monkeypatch.setattr(inference.PLAIN, "decode", noted)
            count()
            replies = await asyncio.gather(*(b.client("POST", PLAIN, ONE_ROW) for _ in range(6)))
            assert {reply.status for reply in replies} == {200}
            assert len(set(seen)) == len(seen) == 6

    run(test)


@pytest.mark.parametrize(("nbytes_min", "interval_s"), [(10, PATIENT_S), (10_000, SWITCH_S)])
def test_only_while_a_long_body_is_read_threads_ask_seldom_for_the_interpreter(
    monkeypatch: pytest.MonkeyPatch, nbytes_min: int, interval_s: float
) -> None:
    monkeypatch.setattr(inference, "LONG_NBYTES_MIN", nbytes_min)
    seen = []
    decode = inference.PLAIN.decode

    def noted(*what: Any) -> Any:
        seen.append(sys.getswitchinterval())
        return decode(*what)

    monkeypatch.setattr(inference.PLAIN, "decode", noted)

    async def test() -> None:
        with bench() as b:
            sys.setswitchinterval(SWITCH_S)
            assert (await b.client("POST", PLAIN, ONE_ROW)).status == 200
            assert sys.getswitchinterval() == pytest.approx(SWITCH_S)

    run(test)
    assert seen == [pytest.approx(interval_s)]
