"""Pure answers for the batcher: when to launch, how long a backlog takes, how many slots a limit needs."""

import math

# One batch runs; one more is enqueued with the engine, so that it never waits for the event loop.
HANDED_MAX = 2

# Slots away from the queue: with the engine, or answered and not yet read by every request in them. Two of each:
# replies are encoded within one turn of the event loop, so this holds a launch back only if reading a reply stalls.
OUT_MAX = HANDED_MAX + 2

# A refused client comes back at once where nothing was measured yet, and within a minute whatever was measured.
RETRY_AFTER_S_UNMEASURED = 1.0
RETRY_AFTER_S_MAX = 60.0

# How much of the past remains in the measured rate when a batch comes back: about the last 20 batches count.
RATE_MEMORY = 0.95


def slots_needed(*, rows_max: int, capacity: int) -> int:
    """How many slots make `rows_max` an exact limit, whatever the sizes of the requests.

    A request never spans slots, so slots can't always be filled to the last row. But a new slot is opened only for a
    request that fits into no open one, and slots that thin out (requests expire, clients hang up) are merged before
    the last free slot is gone. So any two open slots hold more than `capacity` rows together. If m slots are open,
    rows_max > floor(m / 2) × capacity, hence m ≤ 2 × ceil(rows_max / capacity) - 1. Each holds at least one row, too:
    m ≤ rows_max. The rest are the slots away from the queue (`OUT_MAX`).
    """
    assert rows_max > 0
    assert capacity > 0
    return min(rows_max, 2 * math.ceil(rows_max / capacity) - 1) + OUT_MAX


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
) -> float:
    """How long the oldest open slot may still wait, in seconds; 0.0: launch it now; infinite: until a slot comes back.

    rows: in that slot.  is_last: no younger slot is open.  handed: slots with the engine.  out: slots away from the
    queue (those handed and those being answered).  While the engine is busy, a slot that can still grow stays open:
    it is launched ahead only when full, or when a younger one had to be opened because requests no longer fit.
    """
    assert 0 < rows <= capacity
    assert 0 <= handed <= out
    if handed >= HANDED_MAX or out >= OUT_MAX:
        return math.inf
    if rows == capacity or not is_last:
        return 0.0
    if handed > 0:
        return math.inf
    return max(0.0, oldest_at + delay_s_max - now)


def backlog_seconds(*, rows: int, rows_per_second: float) -> float:
    """How long `rows` take at the measured rate; 0.0 when idle or nothing is measured."""
    return rows / rows_per_second if rows_per_second > 0 else 0.0


def retry_after_seconds(*, rows: int, rows_per_second: float) -> float:
    """When a refused client should come back: by then the `rows` of now, queued and running, are answered."""
    if rows_per_second <= 0:
        return RETRY_AFTER_S_UNMEASURED
    return min(RETRY_AFTER_S_MAX, rows / rows_per_second)
