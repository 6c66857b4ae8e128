"""Pure answers for the batcher: when to launch, what comes before a launch, how many slots a limit needs."""

import math
from collections.abc import Sequence

# Slots that are answered and not yet read by every request in them. Replies are encoded within one turn of the event
# loop, so this holds a launch back only if reading a reply stalls.
READ_MAX = 2

# How many different row shapes may wait at the same time, each with the whole queue for itself if it comes to that. A
# request of one shape more is refused while no slot is free.
SHAPES_MAX = 16

# A refused client comes back at once where nothing was measured yet, and within a minute whatever was measured.
RETRY_AFTER_S_UNMEASURED = 1.0
RETRY_AFTER_S_MAX = 60.0

# How much of the past remains in the measured pace: about the last second in which the engine had work counts, and, of
# long batches, no fewer than the last 5.
RATE_S = 1.0
RATE_MEMORY_MIN = 0.8

# Two batch sizes whose rows/s differ by less do not differ: the largest sizes are timed by a run or two.
RATE_TOLERANCE = 0.02

# With one core, the engine's thread can't compute while the event loop works: only the hop is left of it. The loop may
# then stand still for as long as nobody notices, in a request's time or in a health check's.
STALL_S_MAX = 0.001

# A batch that others are about to join (their bodies are being read) waits this many turns of the event loop for them.
TURNS_MAX = 6

# So many full batches are computed by the event loop in one of its turns, before it reads what else has come: requests
# that are read long before it is their turn are no longer in the processor's caches then, and cost a tenth more each.
INLINE_MAX = 4

# What one step of priority is worth: a request overtakes those of the next step that came at most this much earlier.
# So whoever waits long enough is not overtaken any more.
PRIORITY_STEP_S = 0.1
# Where a request stands that names none; 1 goes before it, 3 and more behind it.
PRIORITY_DEFAULT = 2
PRIORITY_MAX = 10

# The wait for more rows, where it is adapted to a latency: more by this share of it after a batch in time, half after a
# late one.
PACE_STEP = 0.02


def handed_max(parallel: int) -> int:
    """How many batches an engine has at most that computes `parallel` of them at the same time.

    One more is enqueued behind each that runs, so that the engine never waits for the event loop.
    """
    return 2 * parallel


def out_max(parallel: int) -> int:
    """How many slots are away from the queue at most: with the engine, or being read."""
    return handed_max(parallel) + READ_MAX


def slots_needed(*, rows_max: int, capacity: int, parallel: int = 1, kinds: int = 1) -> int:
    """How many slots make `rows_max` an exact limit, whatever the sizes of the requests.

    kinds: how many different row shapes are queued at the same time; rows of different shapes never share a slot.

    A request never spans slots, so slots can't always be filled to the last row. But the last slots are opened only for
    a request that fits into no open one, and slots that thin out (requests expire, clients hang up) are merged before
    the last free slot is gone. So when no slot is free, any two open slots of a kind hold more than `capacity` rows
    together. If m slots of a kind hold r rows, r > floor(m / 2) × capacity, so m ≤ 2 × floor((r - 1) / capacity) + 1.
    All kinds together: 2 × (ceil(rows_max / capacity) - 1) + kinds. Each slot holds at least one row, too, so they are
    no more than `rows_max`. The rest are the slots away from the queue (`out_max`).
    """
    assert rows_max > 0
    assert capacity > 0
    return min(rows_max, 2 * math.ceil(rows_max / capacity) - 2 + kinds) + out_max(parallel)


def worthwhile_rows(seconds: Sequence[tuple[int, float]], *, overhead_s: float) -> int:
    """The smallest batch with as many rows per second as any; more rows than that only wait for one another.

    seconds: rows of a batch, ascending, and how long it takes.  overhead_s: between two batches.
    """
    rates = [rows / (batch_s + overhead_s) for rows, batch_s in seconds]
    enough = max(rates) * (1 - RATE_TOLERANCE)
    return next(rows for (rows, _), rate in zip(seconds, rates, strict=True) if rate >= enough)


def seconds_until_launch(
    *,
    rows: int,
    capacity: int,
    is_last: bool,
    handed: int,
    out: int,
    oldest_at: float,
    now: float,
    delay_s_max: float,
    parallel: int = 1,
) -> float:
    """How long the slot whose turn it is may wait, in seconds; 0.0: launch it now; infinite: until one comes back.

    rows: in that slot.  capacity: how many make a batch.  is_last: no other slot is open.  handed: slots with the
    engine.  out: slots away from the queue (those handed and those being answered).  parallel: how many batches the
    engine computes at the same time; while it is busy with so many, a slot that can still grow stays open: it is
    launched ahead only when full, or when a younger one had to be opened because requests no longer fit.
    """
    assert rows > 0
    assert 0 <= handed <= out
    if handed >= handed_max(parallel) or out >= out_max(parallel):
        return math.inf
    if rows >= capacity or not is_last:
        return 0.0
    if handed >= parallel:
        return math.inf
    return max(0.0, oldest_at + delay_s_max - now)


def runs_inline(*, batch_s: float, hop_s: float, cores: int) -> bool:
    """Whether the event loop computes a batch itself: a thread would cost more than it frees.

    batch_s: how long the largest batch takes.  hop_s: from the event loop to the engine's thread and back.
    """
    return batch_s <= (STALL_S_MAX if cores == 1 else min(hop_s, STALL_S_MAX))


def is_worth_a_turn(*, rows: int, capacity: int, reading: int, turns: int) -> bool:
    """Whether a batch waits one more turn of the event loop, for those requests whose bodies are being read."""
    return reading > 0 and rows < capacity and turns < TURNS_MAX


def due_at(*, admitted_at: float, priority: int) -> float:
    """When it is a request's turn: where it would stand had it come that much sooner or later."""
    if priority == 0:
        return admitted_at
    return admitted_at + (min(priority, PRIORITY_MAX) - PRIORITY_DEFAULT) * PRIORITY_STEP_S


def adapted_delay(delay_s: float, *, latency_s: float, rows: int, target_s: float, batch_s: float) -> float:
    """The next wait for more rows, in seconds, after a batch: more by steps while all goes well, half when it was late.

    latency_s: of the oldest request of that batch, from its admission to its answer.  rows: in it; a batch of one says
    that nobody else came, so waiting is not worth while.  target_s: for that latency.  batch_s: of the largest batch.
    """
    if latency_s > target_s or rows == 1:
        return delay_s / 2 if delay_s > target_s / 1000 else 0.0
    return max(0.0, min(delay_s + target_s * PACE_STEP, target_s - batch_s))


def back_before_launch(*, running_rows: int, handed: int, ahead: Sequence[int], parallel: int = 1) -> tuple[int, int]:
    """How many rows, in how many batches, come back before the engine takes one more that stands behind all of these.

    running_rows: in the `handed` batches with the engine.  ahead: rows of each batch that still waits, in their order.
    """
    batches = handed + len(ahead) - (handed_max(parallel) - 1)
    if batches <= 0:
        return 0, 0
    if batches <= handed:
        return max(batches, running_rows * batches // handed), batches
    return running_rows + sum(ahead[: batches - handed]), batches


def rate_memory(batch_s: float) -> float:
    """How much of the past remains in the measured pace when a batch comes back that took so long."""
    return max(RATE_MEMORY_MIN, 1.0 - batch_s / RATE_S)


def retry_after_seconds(backlog_s: float) -> float:
    """When a refused client should come back: by then what is queued and running now is answered. 0.0: not known."""
    return min(RETRY_AFTER_S_MAX, backlog_s) if backlog_s > 0 else RETRY_AFTER_S_UNMEASURED
