"""Large binary bodies that go off the socket straight into their slot."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from nomadserve_runtime.rest import Rest
from nomadserve_runtime.wire import infer
from tests.unit.runtime.http import Answer, Bench, Wire
from tests.unit.runtime.models import GatedEngine

SIZE = 16 * 1024  # 64 KiB a row
WITH_HEAD = 5000  # of a body


class Line:
    """One client's connection to a model that sums up rows."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.connection, self.wire = bench.client.connect()
        self.batcher = bench.models["m"].batcher

    def say(self, raw: bytes, *, with_head: int, waiting: int | None = None) -> None:
        """A request whose head brings so much of its body, and of which so much has come since; None: all of it."""
        head, _, body = raw.partition(b"\r\n\r\n")
        self.wire.waiting += body[with_head:][:waiting]
        self.wire.feed(head + b"\r\n\r\n" + body[:with_head])

    def bring_rest(self) -> None:
        """What waits is read, though nobody asked for it in the turn of its head."""
        self.wire.feed(bytes(self.wire.waiting))
        self.wire.waiting.clear()

    @property
    def is_reading(self) -> bool:
        return isinstance(self.wire.get_protocol(), Rest)

    async def hear(self) -> Answer:
        return await heard(self.wire)


async def heard(wire: Wire) -> Answer:
    while (answer := wire.take_answer()) is None:
        await asyncio.sleep(0.001)
    return answer


def request(*sums: float, shape: list[int] | None = None, **content: Any) -> bytes:
    """Rows that sum up to these numbers."""
    rows = np.zeros((len(sums), SIZE), np.float32)
    rows[:, -1] = sums
    parameters = {"binary_data_size": rows.nbytes}
    tensor = {"name": "x", "shape": shape or list(rows.shape), "datatype": "FP32", "parameters": parameters}
    preface = json.dumps({"inputs": [tensor], **content}).encode()
    lengths = f"content-length: {len(preface) + rows.nbytes}\r\ninference-header-content-length: {len(preface)}\r\n"
    return f"POST /v2/models/m/infer HTTP/1.1\r\n{lengths}\r\n".encode() + preface + rows.tobytes()


def talking(test: Callable[[Line], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def bounded() -> None:
        engine = GatedEngine(inputs=[{"name": "x", "shape": [SIZE]}])
        bench = Bench(m=engine, **options)
        try:
            async with asyncio.timeout(30):
                line = Line(bench)
                # A head that comes for the first time meets the parser.
                for raw in (request(0), request(0, 0), request(0, shape=[1, 1])):
                    line.wire.feed(raw[:WITH_HEAD])
                    await asyncio.sleep(0)
                    line.wire.feed(raw[WITH_HEAD:])
                    while not (line.batcher.in_flight or line.wire.written):  # some have an error to learn
                        await asyncio.sleep(0)
                    if line.batcher.in_flight:
                        engine.let_run(1)
                    await line.hear()
                await test(line)
        finally:
            engine.let_run(1000)
            bench.close()

    asyncio.run(bounded())


def let_run(line: Line, batches: int) -> None:
    engine = line.batcher.engine
    assert isinstance(engine, GatedEngine)
    engine.let_run(batches)


def sums(answer: Answer) -> list[float]:
    assert answer.status == 200, answer.content
    found: list[float] = answer.content["outputs"][0]["data"]
    return found


@pytest.mark.parametrize("with_head", [300, WITH_HEAD, 40_000])
def test_a_large_body_that_has_come_is_in_its_slot_in_the_turn_of_its_head(with_head: int) -> None:
    async def test(line: Line) -> None:
        for number in range(3):
            line.say(request(number, 10), with_head=with_head)
            assert line.batcher.queued_rows == 2
            assert not line.wire.waiting
            assert not line.is_reading
            let_run(line, 1)
            assert sums(await line.hear()) == [number, 10]

    talking(test)


def test_a_body_that_has_come_in_part_holds_no_row_and_arrives_all_the_same() -> None:
    async def test(line: Line) -> None:
        raw = request(7)
        for waiting in (100, 30_000):  # too little to try, and enough
            line.say(raw, with_head=WITH_HEAD, waiting=waiting)
            missing = len(raw.partition(b"\r\n\r\n")[2]) - WITH_HEAD - waiting
            assert line.is_reading
            assert line.batcher.queued_rows == 0
            line.wire.feed(bytes(line.wire.waiting) + raw[-missing:])
            line.wire.waiting.clear()
            let_run(line, 1)
            assert sums(await line.hear()) == [7]
        assert not line.batcher._queue.open

    talking(test)


def test_what_is_refused_is_thrown_away_in_the_turn_of_its_head() -> None:
    async def test(line: Line) -> None:
        others = [Line(line.bench) for _ in range(2)]
        for number, other in enumerate(others):
            other.say(request(number), with_head=WITH_HEAD)
            await asyncio.sleep(0)
        for _ in range(2):
            line.say(request(1), with_head=WITH_HEAD)
            assert (await line.hear()).status == 503
            assert not line.wire.waiting
            assert not line.is_reading
        line.say(request(1), with_head=WITH_HEAD, waiting=100)
        assert (await line.hear()).status == 503
        assert line.is_reading
        let_run(line, 2)
        assert [sums(await other.hear()) for other in others] == [[0], [1]]

    talking(test, queue_max=1)


def test_a_body_whose_rows_do_not_fit_or_come_too_late_is_thrown_away_unread() -> None:
    async def test(line: Line) -> None:
        other = Line(line.bench)
        other.say(request(1), with_head=WITH_HEAD)
        await asyncio.sleep(0)
        other = Line(line.bench)
        other.say(request(2), with_head=WITH_HEAD)
        line.say(request(1, 2), with_head=WITH_HEAD)
        answer = await line.hear()
        assert (answer.status, answer.content["reason"]) == (503, "queue_full")
        assert not line.wire.waiting
        assert not line.is_reading
        let_run(line, 2)
        assert sums(await other.hear()) == [2]

    talking(test, queue_max=2)


def test_what_is_wrong_is_said_when_the_body_is_read() -> None:
    async def test(line: Line) -> None:
        raw = request(1, shape=[1, 1])
        line.say(raw, with_head=WITH_HEAD)
        assert line.is_reading
        line.bring_rest()
        answer = await line.hear()
        assert answer.status == 400
        assert "takes the shape" in answer.content["error"]
        line.say(request(5), with_head=WITH_HEAD)
        let_run(line, 1)
        assert sums(await line.hear()) == [5]

    talking(test)


def test_a_client_that_hangs_up_frees_the_row_that_its_body_went_to() -> None:
    async def test(line: Line) -> None:
        line.say(request(1), with_head=WITH_HEAD)
        await asyncio.sleep(0)
        other = Line(line.bench)
        other.say(request(2), with_head=WITH_HEAD)
        assert line.batcher.queued_rows == 1
        other.connection.connection_lost(None)
        assert line.batcher.queued_rows == 0
        let_run(line, 1)
        assert sums(await line.hear()) == [1]

    talking(test)


def test_rows_that_move_to_another_slot_are_not_read_again() -> None:
    async def test(line: Line) -> None:
        line.say(request(1), with_head=WITH_HEAD)
        [slot] = line.batcher._queue.open
        [call] = slot.tickets
        call.write([np.full((1, SIZE), 2, np.float32)])
        let_run(line, 1)
        assert sums(await line.hear()) == [2 * SIZE]

    talking(test)


def test_of_json_before_tensors_a_bounded_number_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "PREFACES_MAX", 3)

    async def test(line: Line) -> None:
        for number in range(10):
            line.say(request(number, id=f"{number}"), with_head=WITH_HEAD)
            await asyncio.sleep(0)
            if line.is_reading:  # its head came for the first time: another length of the JSON
                line.bring_rest()
            let_run(line, 1)
            answer = await line.hear()
            assert sums(answer) == [number]
            assert answer.content["id"] == f"{number}"
        form = line.bench.models["m"].wire.decode_binary.__self__  # type: ignore[attr-defined]
        assert len(form._prefaces) == 3

    talking(test)
