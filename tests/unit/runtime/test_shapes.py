"""Rows whose shapes differ from request to request: what comes in, how it is batched, what goes out."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from nomadserve_runtime.batcher import Batcher
from nomadserve_runtime.calibration import calibrate
from nomadserve_runtime.calls import Model
from nomadserve_runtime.describe import configuration, metadata, statistics
from nomadserve_runtime.errors import BadRequest, QueueFull
from nomadserve_runtime.metrics import Series
from nomadserve_runtime.slots import Slot, SlotQueue
from nomadserve_runtime.tensors import Profile, TensorSpec
from nomadserve_runtime.wire import ModelWire, simd
from tests.unit.runtime.batching import Asked, answer, batching, run, until
from tests.unit.runtime.models import GatedEngine
from tests.unit.runtime.shapes import MASK, PAIRS, PROFILE, TENSORS, TEXT, UP_TO_8, text_engine

WIRE = ModelWire("m", version="v1", inputs=(TEXT,), outputs=(), rows_max=4, profiles=(PROFILE,))
TWO = Profile(((1,), (1,)), ((3,), (3,)), ((8,), (8,)))
TWINS = ModelWire("m", version="v1", inputs=(TEXT, MASK), outputs=(), rows_max=4, profiles=(TWO,))


def plain(**inputs: Any) -> bytes:
    return json.dumps({"inputs": inputs}).encode()


def tensor(name: str, datatype: str, shape: list[int], data: Any) -> bytes:
    return json.dumps({"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}]}).encode()


# -- in ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 3, 8])
def test_rows_come_in_at_any_length_of_the_profile(length: int) -> None:
    rows = [list(range(length)), list(range(1, length + 1))]
    for query in (
        WIRE.decode_plain(plain(text=rows)),
        WIRE.decode_infer(tensor("text", "INT64", [2, length], rows)),
        WIRE.decode_infer(tensor("text", "INT64", [2, length], rows[0] + rows[1])),
    ):
        assert query.inputs[0].tolist() == rows
        assert query.shapes == ((length,),)


def test_rows_come_in_as_bytes() -> None:
    data = np.arange(6, dtype=np.int64).tobytes()
    spec = {"name": "text", "datatype": "INT64", "shape": [2, 3], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [spec]}).encode()
    query = WIRE.decode_binary(head + data, json_nbytes=len(head))
    assert query.inputs[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert query.shapes == ((3,),)


@pytest.mark.parametrize("length", [2000, 1999])
def test_long_rows_are_read_by_simdjson_in_any_shape(length: int) -> None:
    bounds = Profile(((1, 2),), ((1, 2),), ((2000, 2),))
    wire = ModelWire("m", version="v1", inputs=(PAIRS,), outputs=(), rows_max=4, profiles=(bounds,))
    rows = np.arange(2 * length * 2, dtype=np.float32).reshape(2, length, 2)
    for body in (plain(pairs=rows.tolist()), tensor("pairs", "FP32", [2, length, 2], rows.ravel().tolist())):
        assert len(body) > simd.NBYTES_MIN
        found = wire.decode_plain(body) if b'"name"' not in body else wire.decode_infer(body)
        assert np.array_equal(found.inputs[0], rows)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            plain(text=[[]]),
            "input `text` has rows of the shape [0], where this model takes [1] to [8] - at `$.inputs.text`",
        ),
        (
            plain(text=[[1] * 9]),
            "input `text` has rows of the shape [9], where this model takes [1] to [8] - at `$.inputs.text`",
        ),
        (plain(text=[[1, 2], [1]]), "1 values, where 2 belong - at `$.inputs.text[1]`"),
        (plain(text=[[1], []]), "0 values, where 1 belong - at `$.inputs.text[1]`"),
        (plain(text=[[[1]]]), "expected `int`, got `array` - at `$.inputs.text[0][0]`"),
        (plain(text=[1]), "expected `array`, got `int` - at `$.inputs.text[0]`"),
    ],
)
def test_a_plain_body_of_the_wrong_shape_is_told_so(body: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        WIRE.decode_plain(body)
    assert caught.value.message == words


@pytest.mark.parametrize(
    ("shape", "data", "words"),
    [
        ([1, 9], [1] * 9, "has rows of the shape [9], where this model takes [1] to [8] - at `$.inputs[0]`"),
        ([1, -1], [1], "input `text` takes the shape [rows, length], not [1, -1] - at `$.inputs[0].shape`"),
        ([1], [1], "input `text` takes the shape [rows, length], not [1] - at `$.inputs[0].shape`"),
        ([], [1], "input `text` takes the shape [rows, length], not [] - at `$.inputs[0].shape`"),
        ([1, 2, 2], [1] * 4, "input `text` takes the shape [rows, length], not [1, 2, 2] - at `$.inputs[0].shape`"),
        ([1, 3], [1, 2], "2 values, where `shape` [1, 3] takes 3 - at `$.inputs[0].data`"),
        ([1, 3], [[1, 2]], "the shape is [1, 2], where `shape` says [1, 3] - at `$.inputs[0].data`"),
        ([2, 1], [[1, 2]], "1 rows, where `shape` says 2 - at `$.inputs[0].data`"),
        ([1, 10**18], [1], f"1 values, where `shape` [1, {10**18}] takes {10**18} - at `$.inputs[0].data`"),
    ],
)
def test_a_protocol_body_of_the_wrong_shape_is_told_so(shape: list[int], data: Any, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        WIRE.decode_infer(tensor("text", "INT64", shape, data))
    assert words in caught.value.message


def test_raw_bytes_tell_no_shape() -> None:
    with pytest.raises(BadRequest, match="a body without JSON does not tell the shape of `text`, which may differ"):
        WIRE.decode_binary(b"\0" * 8, json_nbytes=0)


def test_dimensions_of_the_same_name_have_the_same_size() -> None:
    assert TWINS.decode_plain(plain(text=[[1, 2]], mask=[[1, 0]])).shapes == ((2,), (2,))
    with pytest.raises(BadRequest) as caught:
        TWINS.decode_plain(plain(text=[[1, 2]], mask=[[1]]))
    assert caught.value.message == "`length` is 2 in `text` and 1 in `mask` - at `$.inputs.mask`"


def test_shapes_of_two_profiles_do_not_mix() -> None:
    small, large = Profile(((1,), (1,)), ((1,), (1,)), ((2,), (2,))), Profile(((5,), (5,)), ((5,), (5,)), ((8,), (8,)))
    inputs = (TEXT, TensorSpec("mask", "FP32", (-1,)))
    wire = ModelWire("m", version="v1", inputs=inputs, outputs=(), rows_max=4, profiles=(small, large))
    assert wire.decode_plain(plain(text=[[1] * 6], mask=[[1] * 7])).shapes == ((6,), (7,))
    with pytest.raises(BadRequest) as caught:
        wire.decode_plain(plain(text=[[1]], mask=[[1] * 7]))
    assert caught.value.message == (
        "no profile of this model takes these row shapes together: `text` [1], `mask` [7] - at `$.inputs`"
    )
    with pytest.raises(BadRequest) as caught:
        wire.decode_plain(plain(text=[[1] * 3], mask=[[1] * 3]))
    assert "rows of the shape [3], where this model takes [1] to [2] or [5] to [8]" in caught.value.message


def test_the_longest_body_follows_from_the_largest_rows() -> None:
    assert WIRE.body_nbytes_max == 64 * 1024 + 4 * 8 * 64


# -- batches ----------------------------------------------------------------------------------------------------------


class Text(Asked):
    """A request of one row."""

    def __init__(self, *values: int) -> None:
        super().__init__(1, shapes=((len(values),),))
        self.admitted_at = self.due_at = 0.0
        self.values = [np.array([values], np.int64)]


def admit(batcher: Batcher, *values: int) -> Text:
    ticket = Text(*values)
    batcher.admit(ticket, ticket.values)
    return ticket


class Noting(GatedEngine):
    """Notes the shapes of its batches."""

    def run(self, slot: Slot, rows: int) -> None:
        self.shapes = [*getattr(self, "shapes", []), slot.inputs[0][:rows].shape]
        super().run(slot, rows)


def noting_engine(batch_max: int = 4) -> Noting:
    engine = Noting(batch_max=batch_max, **TENSORS)
    engine.profiles = (PROFILE,)
    return engine


def test_rows_of_different_shapes_never_share_a_batch() -> None:
    async def test() -> None:
        engine = noting_engine()
        async with batching(engine) as batcher:
            first = [admit(batcher, 1), admit(batcher, 2)]  # one runs, or both as one batch
            await until(lambda: engine.batches != [])
            asked = [admit(batcher, *([n] * (1 + n % 3))) for n in range(6)]
            engine.let_run(10)
            for ticket in (*first, *asked):
                assert await answer(ticket) == [sum(ticket.values[0][0].tolist())]
            assert {rows for rows, _ in engine.shapes[1:]} == {2}
            assert sorted(length for _, length in engine.shapes[1:]) == [1, 2, 3]

    run(test)


def test_memory_of_a_slot_serves_one_shape_after_the_other() -> None:
    async def test() -> None:
        async with batching(text_engine(batch_max=1)) as batcher:
            for values in ([1, 2, 3, 4, 5, 6, 7, 8], [9], [1, 2, 3], [4] * 8):
                assert await answer(admit(batcher, *values)) == [sum(values)]

    run(test)


def test_an_open_slot_of_another_shape_does_not_make_a_slot_full() -> None:
    async def test() -> None:
        engine = noting_engine()
        async with batching(engine, queue_max=20) as batcher:
            asked = [admit(batcher, 1)]
            await until(lambda: engine.batches != [])
            for _ in range(3):
                asked += [admit(batcher, 1), admit(batcher, 1, 1), admit(batcher, 1, 1, 1)]
            engine.let_run(20)
            for ticket in asked:
                await answer(ticket)
            assert engine.batches == [1, 3, 3, 3]

    run(test)


def test_more_shapes_than_there_are_slots_for_find_the_queue_full() -> None:
    async def test() -> None:
        queue = SlotQueue([slot() for _ in range(2)], rows_max=100)
        for length in (1, 2, 1, 2):
            assert queue.has_place(Text(*[0] * length))
            queue.reserve(Text(*[0] * length))
        assert not queue.has_place(Text(0, 0, 0))

    run(test)


def slot() -> Slot:
    engine = text_engine()
    return Slot(
        inputs=engine.inputs,
        outputs=engine.outputs,
        capacity=2,
        host_array=engine.host_array,
        input_shapes_max=((8,),),
    )


def test_slots_of_the_same_shape_are_merged_for_a_new_one() -> None:
    async def test() -> None:
        queue = SlotQueue([slot() for _ in range(2)], rows_max=100)
        first, second, third = Text(1, 1), Text(2, 2), Text(3, 3)
        for ticket in (first, second, third):
            queue.reserve(ticket)
            ticket.write(ticket.values)
        queue.leave(second)
        other = Text(4)
        assert queue.has_place(other)
        queue.reserve(other)
        assert first.slot is third.slot
        assert [first.slot.inputs[0][ticket.start].tolist() for ticket in (first, third)] == [[1, 1], [3, 3]]
        assert other.slot is not first.slot

    run(test)


def test_a_request_of_one_shape_too_many_is_refused() -> None:
    async def test() -> None:
        engine = noting_engine(batch_max=1)
        async with batching(engine, queue_max=4) as batcher:
            batcher._queue._free = batcher._queue._free[:3]
            tickets = [admit(batcher, *[1] * length) for length in (1, 2, 3)]
            with pytest.raises(QueueFull):
                admit(batcher, 1, 1, 1, 1)
            engine.let_run(10)
            for ticket in tickets:
                await answer(ticket)

    run(test)


# -- what is told of it -----------------------------------------------------------------------------------------------


def test_every_shape_of_a_profile_is_calibrated_and_told() -> None:
    class Unknown(type(text_engine())):  # type: ignore[misc]
        def known_seconds(self, rows: int) -> None:
            return None

    engine = text_engine(batch_max=2)
    engine.__class__ = Unknown

    async def test() -> None:
        calibration = await calibrate(engine)
        assert [times.shapes for times in calibration.by_shapes] == [((3,),), ((1,),), ((8,),)]
        assert calibration.table == calibration.by_shapes[0].table
        metrics = Series().model("m")
        batcher = Batcher(engine, queue_max=4, delay_s_max=0, metrics=metrics, calibration=calibration)
        model = Model("m", WIRE, batcher, metrics)
        told = statistics(model, version="v1")["calibration"]["by_shapes"]
        assert [each["row_shapes"] for each in told] == [{"text": (3,)}, {"text": (1,)}, {"text": (8,)}]
        assert metadata(model, version="v1")["inputs"] == [{"name": "text", "datatype": "INT64", "shape": [-1, -1]}]
        assert metadata(model, version="v1")["outputs"][0]["shape"] == [-1, -1]
        assert configuration(model)["input"][0]["dims"] == [-1]
        batcher.close()

    asyncio.run(test())


def test_the_profile_of_the_tests_is_what_they_say() -> None:
    assert text_engine().profiles == (PROFILE,)
    assert UP_TO_8["text"]["max"] == [4, 8]
