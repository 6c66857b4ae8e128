"""The queue of a model: slots of preallocated host rows, and the tickets of the requests that hold rows in them.

    FREE ──reserve──► OPEN ──take──► RUNNING ──finish──► FREE

Everything here belongs to the event loop. The one exception: while a slot is RUNNING, its arrays belong to the engine
thread. Nothing here awaits.
"""

import enum
import heapq
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from nomadserve_runtime.errors import Fault
from nomadserve_runtime.tensors import TEXT, RowShapes, TensorSpec, blank

HostArray = Callable[[tuple[int, ...], np.dtype], np.ndarray]


class Stage(enum.Enum):
    """Where a slot is on its way; only its `SlotQueue` moves it on."""

    FREE = enum.auto()
    OPEN = enum.auto()  # queued: takes rows, and gives them back
    RUNNING = enum.auto()  # with the engine, or its requests are being answered


class Slot:
    """The host memory of one batch: rows of every input and output.

    Where the row shapes of a model differ from request to request, its memory is as large as the largest rows take,
    and all rows of one batch have the same shapes.

    input_shapes_max, output_shapes_max: of the largest rows, where they may differ. Without them, there is no memory
        for outputs that differ: the engine brings its own.

    Attributes:
        inputs: one array per input, in the order of the model; shape (capacity, *row_shape).
        outputs: the same for the outputs. Where they differ, the engine says with each batch what they are.
        shapes: row shapes of the inputs that it holds, where they may differ; else empty.
        rows: rows that requests hold, never more than `capacity`. Dense at the start of the arrays once taken.
        tickets: the requests that hold rows, in the order in which they came in.
        due_at: when it is this slot's turn: the soonest turn of any request that it took in, monotonic seconds.
        started_at, ended_at: of its last batch, monotonic seconds.
        answered_at: when its last batch came back, by the calendar, UTC.
    """

    def __init__(
        self,
        *,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        capacity: int,
        host_array: HostArray,
        input_shapes_max: RowShapes = (),
        output_shapes_max: RowShapes = (),
    ) -> None:
        assert capacity > 0
        self.capacity = capacity
        self._input_memory = self.inputs = _memory(inputs, input_shapes_max, capacity, host_array)
        self._output_memory = self.outputs = _memory(outputs, output_shapes_max, capacity, host_array)
        self._texts = [array for array in (*self._input_memory, *self._output_memory) if array.dtype == TEXT]
        self.shapes: RowShapes = ()
        self.rows = 0
        self.tickets: dict[Ticket, None] = {}
        self.stage = Stage.FREE
        self.due_at = math.inf
        self.started_at = 0.0
        self.ended_at = 0.0
        self.answered_at = datetime.min.replace(tzinfo=UTC)
        self._end = 0  # rows [0, _end) were given out; the difference to `rows` are holes that requests left

    def clear(self) -> None:
        """Forget all requests and their rows, and their strings, which may be long."""
        for array in self._texts:
            array[...] = blank(TEXT)
        self.tickets.clear()
        self.rows = 0
        self._end = 0
        self.due_at = math.inf

    @property
    def free_rows(self) -> int:
        """Rows that a request may still take."""
        return self.capacity - self.rows

    @property
    def oldest_at(self) -> float:
        """When the oldest request in it was admitted, monotonic seconds."""
        return next(iter(self.tickets)).admitted_at

    def take_shapes(self, shapes: RowShapes) -> None:
        """Lay the memory of an empty slot out for rows of these shapes, one after the other without gaps."""
        assert not self.tickets
        if shapes == self.shapes:
            return
        self.shapes = shapes
        self.inputs = _laid_out(self._input_memory, shapes, self.capacity)

    def shape_outputs(self, shapes: RowShapes) -> None:
        """Lay the memory of the outputs out for rows of these shapes. Called by the engine, while it has the slot."""
        self.outputs = _laid_out(self._output_memory, shapes, self.capacity)

    def add(self, ticket: "Ticket") -> None:
        """Give `ticket` the next rows; closes holes first where the end is reached."""
        rows = ticket.rows
        assert self.rows + rows <= self.capacity
        assert ticket.shapes == self.shapes
        if self._end + rows > self.capacity:
            self.close_holes()
        ticket.slot = self
        ticket.start = self._end
        self._end += rows
        self.rows += rows
        self.tickets[ticket] = None
        if ticket.due_at < self.due_at:
            self.due_at = ticket.due_at

    def remove(self, ticket: "Ticket") -> None:
        """Take the rows of `ticket` back, leaving a hole."""
        del self.tickets[ticket]
        self.rows -= ticket.rows
        if not self.tickets:
            self._end = 0
            self.due_at = math.inf

    def close_holes(self) -> None:
        """Move the rows of every ticket down until they are dense."""
        if self._end == self.rows:
            return
        end = 0
        for ticket in sorted(self.tickets, key=lambda ticket: ticket.start):
            if ticket.start != end:
                for array in self.inputs:
                    array[end : end + ticket.rows] = array[ticket.start : ticket.start + ticket.rows]
                ticket.start = end
            end += ticket.rows
        self._end = end
        assert self._end == self.rows

    def absorb(self, younger: "Slot") -> None:
        """Take over all requests of a younger slot, with their rows."""
        assert younger.rows <= self.free_rows
        for ticket in list(younger.tickets):
            rows = [array[ticket.start : ticket.start + ticket.rows] for array in younger.inputs]
            younger.remove(ticket)
            self.add(ticket)
            ticket.write(rows)


class Ticket(ABC):
    """One admitted request and its rows in a slot. Whoever admits it says in a subclass what its answer leads to.

    Attributes:
        rows: how many rows it holds, from `start` on in `slot`.
        deadline_at: monotonic seconds after which its batch must not be launched; infinite for none.
        priority: 0 for none given; 1 goes first, larger numbers later.
        shapes: row shapes of its inputs, where they may differ from request to request; else empty.
        admitted_at: monotonic seconds.
        due_at: when it is its turn: monotonic seconds, moved by its priority.
        answer_by: by when an answer was foreseen on its admission, monotonic seconds; infinite: nothing was ahead.
        is_answered: its answer was told; only the batcher says so.
        fault: why it has no answer; None where it has one.
    """

    __slots__ = (
        "admitted_at",
        "answer_by",
        "deadline_at",
        "due_at",
        "fault",
        "is_answered",
        "priority",
        "rows",
        "shapes",
        "slot",
        "start",
    )

    slot: Slot
    start: int
    admitted_at: float
    due_at: float

    def __init__(self, rows: int, *, deadline_at: float = math.inf, priority: int = 0, shapes: RowShapes = ()) -> None:
        self.rows = rows
        self.shapes = shapes
        self.deadline_at = deadline_at
        self.priority = priority
        self.answer_by = math.inf
        self.is_answered = False
        self.fault: Fault | None = None

    @abstractmethod
    def answered(self) -> None:
        """Its output rows are written, and valid until this returns; or `fault` says why there are none.

        Called once, on the event loop. Must not raise.
        """

    def write(self, inputs: Sequence[np.ndarray]) -> None:
        """Copy the rows of the request, one array per input in the order of the model, into the slot."""
        start, end = self.start, self.start + self.rows
        if len(inputs) == 1:  # as most models have it: a loop over pairs takes twice the time
            [target] = self.slot.inputs
            target[start:end] = inputs[0]
            return
        for target, rows in zip(self.slot.inputs, inputs, strict=True):
            target[start:end] = rows

    def outputs(self) -> tuple[np.ndarray, ...]:
        """Views on the output rows; for `answered` only."""
        start, end = self.start, self.start + self.rows
        return tuple([array[start:end] for array in self.slot.outputs])


class SlotQueue:
    """All slots of a model; at most `rows_max` rows are queued, and exactly that many can be.

    slots: as many as `policy.slots_needed` says, all alike. Where row shapes differ, that many can be sure of a place
        only as long as no more different ones are queued than that function was told.
    batch_rows: how many rows a slot shall take while there are others; all that it can, where none is given.

    Attributes:
        rows: queued now: reserved, and not taken for the engine.
        open: the slots that are queued, oldest first; each holds at least one row.
        out: how many slots are away: running, or being answered.
    """

    def __init__(self, slots: Sequence[Slot], *, rows_max: int, batch_rows: int | None = None) -> None:
        assert slots
        self.capacity = slots[0].capacity
        self._batch_rows = batch_rows or self.capacity
        self.rows_max = rows_max
        self.rows = 0
        self.open: list[Slot] = []
        self.out = 0
        # The last one given back is the first one taken: few slots are ever touched while the load is low.
        self._free = list(slots)
        # Of the open slots those with a free row, and what kind of requests they take: a long queue of full slots
        # costs nothing to walk past.
        self._roomy: dict[Slot, int] = {}

    @property
    def free_rows(self) -> int:
        """How many rows a request can get now, if they fit into one slot."""
        return self.rows_max - self.rows

    def reserve(self, ticket: Ticket) -> None:
        """Give `ticket` rows in the first open slot of its priority that still wants some, else in a new one.

        Where no slot is left, any that has room takes it. Rows of different shapes never share a slot.
        """
        rows = ticket.rows
        assert 0 < rows <= self.capacity
        assert rows <= self.rows_max - self.rows
        slot = self._slot_for(ticket)
        slot.add(ticket)
        self.rows += rows
        if slot.rows == self.capacity:
            del self._roomy[slot]

    def has_place(self, ticket: Ticket) -> bool:
        """Whether a slot can be had for a ticket whose rows fit under the limit. Sure, but for too many shapes."""
        is_room = any(slot.free_rows >= ticket.rows and slot.shapes == ticket.shapes for slot in self._roomy)
        return is_room or bool(self._free) or self._to_merge() is not None

    def is_last(self, slot: Slot) -> bool:
        """Whether no other open slot takes the same kind of rows as this open one."""
        return len(self.open) == 1 or sum(other.shapes == slot.shapes for other in self.open) == 1

    def joining_max(self, slot: Slot) -> int:
        """How many rows may still join this open slot, as things stand."""
        return max(0, min(self.free_rows, (self._batch_rows if self._has_enough() else self.capacity) - slot.rows))

    def _has_enough(self) -> bool:
        """Whether the free slots could take all that may still come."""
        return len(self._free) * self.capacity >= self.rows_max - self.rows

    def next(self) -> Slot:
        """The open slot whose turn it is."""
        return self.open[0] if len(self.open) == 1 else min(self.open, key=_due_at)

    def take(self) -> Slot:
        """The open slot whose turn it is, its rows dense, for the engine; `finish` it afterwards."""
        slot = self.next()
        self._close_slot(slot, Stage.RUNNING)
        slot.close_holes()
        self.rows -= slot.rows
        self.out += 1
        return slot

    def finish(self, slot: Slot) -> None:
        """The requests of a slot that was taken have their answers: it is free."""
        assert slot.stage is Stage.RUNNING
        slot.clear()
        slot.stage = Stage.FREE
        self.out -= 1
        self._free.append(slot)

    def leave(self, ticket: Ticket) -> None:
        """The request needs its rows no more, at whatever stage they are; nothing happens where it left before."""
        slot = ticket.slot
        if ticket not in slot.tickets:
            return
        slot.remove(ticket)
        if slot.stage is Stage.OPEN:
            self.rows -= ticket.rows
            if slot.tickets:
                self._note_room(slot, self._roomy.get(slot, ticket.priority))
            else:
                self._close_slot(slot, Stage.FREE)
                self._free.append(slot)

    def _slot_for(self, ticket: Ticket) -> Slot:
        mine = anyone = None
        rows_max, wanted = self.capacity - ticket.rows, self._batch_rows - ticket.rows
        for slot, priority in self._roomy.items():
            if slot.rows <= rows_max and slot.shapes == ticket.shapes:
                anyone = slot
                if priority == ticket.priority:
                    if slot.rows <= wanted:
                        return slot
                    mine = slot  # the youngest takes more where the free ones are not enough: nobody is overtaken
        if self._free and (self._has_enough() or mine is None or mine is not self.open[-1]):
            return self._open_slot(ticket)
        return mine or anyone or self._open_slot(ticket)

    def _open_slot(self, ticket: Ticket) -> Slot:
        if not self._free:
            self._merge_two()
        slot = self._free.pop()
        slot.take_shapes(ticket.shapes)
        slot.stage = Stage.OPEN
        self.open.append(slot)
        self._roomy[slot] = ticket.priority
        return slot

    def _close_slot(self, slot: Slot, stage: Stage) -> None:
        slot.stage = stage
        self.open.remove(slot)
        self._roomy.pop(slot, None)

    def _note_room(self, slot: Slot, priority: int) -> None:
        if slot.free_rows:
            self._roomy.setdefault(slot, priority)
        else:
            self._roomy.pop(slot, None)

    def _merge_two(self) -> None:
        """Make a free slot of the two emptiest of a kind; `policy.slots_needed` says why they fit into one."""
        pair = self._to_merge()
        assert pair is not None
        older, younger = sorted(pair, key=self.open.index)
        older.absorb(younger)
        self._close_slot(younger, Stage.FREE)
        self._free.append(younger)
        self._note_room(older, self._roomy[older])

    def _to_merge(self) -> list[Slot] | None:
        """Two open slots for rows of the same shapes that fit into one; None where there are none."""
        kinds: dict[RowShapes, list[Slot]] = {}
        for slot in self.open:
            kinds.setdefault(slot.shapes, []).append(slot)
        pairs = [heapq.nsmallest(2, slots, key=_rows) for slots in kinds.values() if len(slots) > 1]
        emptiest = min(pairs, key=_rows_of_all, default=None)
        return emptiest if emptiest is not None and _rows_of_all(emptiest) <= self.capacity else None


def _memory(
    specs: Sequence[TensorSpec], shapes_max: RowShapes, capacity: int, host_array: HostArray
) -> tuple[np.ndarray, ...]:
    """One array per tensor; an empty one where nobody says how large its rows get."""
    largest = shapes_max or [spec.row_shape if spec.is_fixed else (0,) for spec in specs]
    return tuple(host_array((capacity, *shape), spec.dtype) for spec, shape in zip(specs, largest, strict=True))


def _laid_out(memory: Sequence[np.ndarray], shapes: RowShapes, capacity: int) -> tuple[np.ndarray, ...]:
    """Views on the start of each memory: `capacity` rows of these shapes, one after the other without gaps."""
    return tuple(
        array.reshape(-1)[: capacity * math.prod(shape)].reshape(capacity, *shape)
        for array, shape in zip(memory, shapes, strict=True)
    )


def _due_at(slot: Slot) -> float:
    return slot.due_at


def _rows(slot: Slot) -> int:
    return slot.rows


def _rows_of_all(slots: Sequence[Slot]) -> int:
    return sum(map(_rows, slots))
