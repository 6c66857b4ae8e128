"""The interpreter's lock, and how a thread gets it from an event loop that is never idle.

A thread that wants the lock asks for it only after it waited one switch interval in which nobody let go of it. A busy
event loop lets go for a microsecond at every system call, which wakes the thread in vain and starts its wait anew: with
Python's interval of 5 ms it gets the lock by chance, after 10 ms at the median and up to 3 s (measured on two cores).
A shorter interval alone does not help: the kernel lets a wait of microseconds end 50 µs late. With both set as here, a
thread has the lock after 0.1 ms at the median, and 5 ms at most.

https://github.com/python/cpython/blob/3.11/Python/ceval_gil.h (`take_gil`); `man 2 PR_SET_TIMERSLACK`
"""

import ctypes
import sys

# Shorter than what the event loop does between two system calls, and longer than what the engine's thread does there.
SWITCH_S = 20e-6

PR_SET_TIMERSLACK = 29
TIMER_SLACK_NS = 1


def take_turns() -> None:
    """Have the calling thread ask the event loop for the lock in time. For every thread that computes beside it."""
    sys.setswitchinterval(SWITCH_S)
    if sys.platform == "linux":
        # Without privileges, of this thread alone; its return value says nothing that could be acted upon.
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0)
