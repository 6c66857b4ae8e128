import random

import numpy as np
import pytest

from nomadserve_runtime import policy
from nomadserve_runtime.slots import Slot, SlotQueue, Stage, Ticket
from nomadserve_runtime.tensors import TensorSpec

X = TensorSpec("x", "FP32", (2,))
Y = TensorSpec("y", "INT64", ())


class Waiting(Ticket):
    def answered(self) -> None:
        raise AssertionError("a queue answers nobody")


def new_slot(capacity: int) -> Slot:
    return Slot(inputs=(X,), outputs=(Y,), capacity=capacity, host_array=np.empty)


def new_queue(*, rows_max: int, capacity: int, batch_rows: int | None = None) -> SlotQueue:
    count = policy.slots_needed(rows_max=rows_max, capacity=capacity)
    return SlotQueue([new_slot(capacity) for _ in range(count)], rows_max=rows_max, batch_rows=batch_rows)


def admit(queue: SlotQueue, rows: int, *, value: float = 0.0) -> Ticket:
    ticket = Waiting(rows)
    ticket.admitted_at = ticket.due_at = 0.0
    queue.reserve(ticket)
    ticket.write([np.full((rows, 2), value, np.float32)])
    return ticket


def values_of(ticket: Ticket) -> set[float]:
    return set(ticket.slot.inputs[0][ticket.start : ticket.start + ticket.rows].ravel().tolist())


def test_a_slot_has_rows_of_every_tensor() -> None:
    slot = new_slot(4)
    assert [(array.shape, array.dtype) for array in slot.inputs] == [((4, 2), np.dtype(np.float32))]
    assert [(array.shape, array.dtype) for array in slot.outputs] == [((4,), np.dtype(np.int64))]


def test_requests_share_a_slot_row_by_row() -> None:
    queue = new_queue(rows_max=8, capacity=4)
    first, second = admit(queue, 1, value=1), admit(queue, 3, value=2)
    assert first.slot is second.slot
    assert (first.start, second.start) == (0, 1)
    assert queue.rows == 4


def test_a_request_never_spans_slots() -> None:
    queue = new_queue(rows_max=8, capacity=4)
    first, second = admit(queue, 3), admit(queue, 2)
    assert first.slot is not second.slot
    assert queue.open == [first.slot, second.slot]


def test_a_small_request_takes_the_room_that_a_large_one_left() -> None:
    queue = new_queue(rows_max=8, capacity=4)
    first, _, third = admit(queue, 3), admit(queue, 2), admit(queue, 1)
    assert third.slot is first.slot


def test_the_oldest_slot_is_taken_first_and_its_rows_count_no_longer() -> None:
    queue = new_queue(rows_max=8, capacity=4)
    first, second = admit(queue, 4), admit(queue, 2)
    assert queue.take() is first.slot
    assert first.slot.stage is Stage.RUNNING
    assert (queue.rows, queue.out) == (2, 1)
    assert queue.open == [second.slot]


def test_rows_of_a_request_that_left_are_closed_up_before_the_engine_sees_them() -> None:
    queue = new_queue(rows_max=8, capacity=4)
    first, second, third = admit(queue, 1, value=1), admit(queue, 1, value=2), admit(queue, 2, value=3)
    queue.leave(second)
    slot = queue.take()
    assert slot.rows == 3
    assert (first.start, third.start) == (0, 1)
    assert slot.inputs[0][:3, 0].tolist() == [1, 3, 3]


def test_the_room_of_a_request_that_left_is_used_again() -> None:
    queue = new_queue(rows_max=4, capacity=4)
    _, second, third = admit(queue, 1), admit(queue, 1), admit(queue, 2, value=3)
    queue.leave(second)
    assert queue.free_rows == 1
    last = admit(queue, 1, value=4)
    assert last.slot is third.slot
    assert (values_of(third), values_of(last)) == ({3.0}, {4.0})


def test_an_open_slot_that_all_have_left_is_free_again() -> None:
    queue = new_queue(rows_max=4, capacity=4)
    ticket = admit(queue, 2)
    queue.leave(ticket)
    assert ticket.slot.stage is Stage.FREE
    assert (queue.rows, queue.open) == (0, [])


def test_a_slot_is_free_when_its_requests_have_their_answers() -> None:
    queue = new_queue(rows_max=4, capacity=4)
    admit(queue, 1), admit(queue, 1)
    slot = queue.take()
    assert (slot.stage, slot.rows, queue.out) == (Stage.RUNNING, 2, 1)
    queue.finish(slot)
    assert (slot.stage, slot.rows, slot.tickets, queue.out) == (Stage.FREE, 0, {}, 0)


def test_a_running_slot_stays_with_the_engine_when_all_have_left() -> None:
    queue = new_queue(rows_max=4, capacity=4)
    ticket = admit(queue, 1)
    slot = queue.take()
    queue.leave(ticket)
    assert (slot.stage, queue.out) == (Stage.RUNNING, 1)
    queue.finish(slot)
    assert (slot.stage, queue.out) == (Stage.FREE, 0)


def test_leaving_twice_changes_nothing() -> None:
    queue = new_queue(rows_max=4, capacity=4)
    staying, leaving = admit(queue, 1), admit(queue, 2)
    queue.leave(leaving)
    queue.leave(leaving)
    assert queue.rows == staying.rows == 1


def test_batches_stay_small_where_larger_ones_are_no_faster_as_long_as_there_are_slots() -> None:
    queue = new_queue(rows_max=20, capacity=4, batch_rows=2)
    pair, large = [admit(queue, 1), admit(queue, 1)], admit(queue, 4)
    assert pair[0].slot is pair[1].slot is not large.slot
    assert [slot.rows for slot in queue.open] == [2, 4]


def test_where_all_slots_are_open_the_youngest_takes_more_and_nobody_in_between_is_overtaken() -> None:
    queue = new_queue(rows_max=16, capacity=4, batch_rows=1)
    order = [queue.open.index(admit(queue, 1).slot) for _ in range(16)]
    assert order == sorted(order)
    assert order.count(0) == order.count(1) == 1
    # Nor where the oldest have gone and others come in their place.
    for _ in range(100):
        slot = queue.take()
        queue.finish(slot)
        while queue.free_rows:
            assert admit(queue, 1).slot is queue.open[-1]


def test_as_many_rows_may_join_a_slot_as_make_a_batch_or_where_slots_are_few_as_it_holds() -> None:
    queue = new_queue(rows_max=16, capacity=4, batch_rows=2)
    assert [queue.joining_max(admit(queue, 1).slot) for _ in range(2)] == [1, 0]
    while queue.free_rows > 1:
        slot = admit(queue, 1).slot
        assert queue.joining_max(slot) <= min(4 - slot.rows, queue.free_rows)
    assert queue.joining_max(admit(queue, 1).slot) == 0


def test_sparse_slots_are_merged_when_no_slot_is_free() -> None:
    queue = new_queue(rows_max=8, capacity=4)
    taken = [admit(queue, 4, value=value) for value in (1, 2)]
    away = [queue.take(), queue.take()]
    pairs = [(admit(queue, 1, value=10 + n), admit(queue, 3, value=20 + n)) for n in range(2)]
    for _, large in pairs:
        queue.leave(large)
    # Every slot that is left is held somewhere: two are away, two are open with one row each, the others fill up.
    rest = [admit(queue, 3, value=30), admit(queue, 3, value=40)]
    assert queue.rows == queue.rows_max
    assert [values_of(ticket) for ticket in rest] == [{30.0}, {40.0}]
    assert [values_of(small) for small, _ in pairs] == [{10.0}, {11.0}]
    assert [slot.stage for slot in away] == [Stage.RUNNING] * 2
    assert [values_of(ticket) for ticket in taken] == [{1.0}, {2.0}]


@pytest.mark.parametrize(
    ("rows_max", "capacity"), [(1, 1), (5, 1), (1, 8), (7, 8), (8, 8), (9, 8), (24, 8), (25, 8), (100, 7), (64, 32)]
)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_small", [False, True], ids=["batches as large as they get", "small batches"])
def test_the_limit_is_exact_whatever_comes_and_goes(rows_max: int, capacity: int, is_small: bool, seed: int) -> None:
    """`reserve` finds room for every request that fits under the limit, with as many slots as the policy allows."""
    chance = random.Random(seed)
    queue = new_queue(rows_max=rows_max, capacity=capacity, batch_rows=(capacity + 3) // 4 if is_small else None)
    live: dict[Ticket, float] = {}
    away: list[Slot] = []
    for step in range(3000):
        action = chance.random()
        rows = chance.choice([1, chance.randint(1, capacity), capacity // 2 + 1])
        if action < 0.6 and rows <= min(queue.free_rows, capacity):
            live[admit(queue, rows, value=step)] = step
        elif action < 0.8 and live:
            gone = chance.choice(list(live))
            del live[gone]
            queue.leave(gone)
        elif action < 0.9 and queue.open and queue.out < policy.out_max(1):
            away.append(queue.take())
        elif away:
            slot = away.pop(chance.randrange(len(away)))
            for ticket in slot.tickets:
                del live[ticket]
            queue.finish(slot)
        queued = [ticket for ticket in live if ticket.slot.stage is Stage.OPEN and ticket in ticket.slot.tickets]
        assert queue.rows == sum(ticket.rows for ticket in queued) <= rows_max
        assert all(values_of(ticket) == {value} for ticket, value in live.items())
    for ticket in live:
        queue.leave(ticket)
    for slot in away:
        queue.finish(slot)
    assert (queue.rows, queue.out, queue.open) == (0, 0, [])
    assert {slot.stage for slot in queue._free} == {Stage.FREE}
    assert len(set(queue._free)) == len(queue._free) == policy.slots_needed(rows_max=rows_max, capacity=capacity)
