"""The interpreter's lock, and how a thread gets it from an event loop that is never idle.

A thread that wants the lock asks for it only after it waited one switch interval in which nobody let go of it. A busy
event loop lets go for a microsecond at every system call, which wakes the thread in vain and starts its wait anew: with
Python's interval of 5 ms it gets the lock by chance, after 10 ms at the median and up to 3 s (measured on two cores).
A shorter interval alone does not help: the kernel lets a wait of microseconds end 50 µs late. With both set as here, a
thread has the lock after 0.1 ms at the median, and 5 ms at most.

There is one time at which asking is in vain: while the event loop is in one call that keeps the lock, as to parse an
image of JSON. On a single core, a thread that woke up every 20 µs took an eighth of all throughput from that very call.

https://github.com/python/cpython/blob/3.11/Python/ceval_gil.h (`take_gil`); `man 2 PR_SET_TIMERSLACK`
"""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

# Shorter than what the event loop does between two system calls, and longer than what the engine's thread does there.
SWITCH_S = 20e-6

# While the lock is kept: a few wake-ups in 5 ms cost nothing, and one of them is in time for its end.
PATIENT_S = 0.002

PR_SET_TIMERSLACK = 29
TIMER_SLACK_NS = 1


def take_turns() -> None:
    """Have the calling thread ask the event loop for the lock in time. For every thread that computes beside it."""
    sys.setswitchinterval(SWITCH_S)
    if sys.platform == "linux":
        # Without privileges, of this thread alone; its return value says nothing that could be acted upon.
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0)


@contextlib.contextmanager
def keeping_lock() -> Iterator[None]:
    """Around one call of milliseconds that keeps the lock: who waits for it asks seldom meanwhile."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(max(PATIENT_S, before_s))
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)
