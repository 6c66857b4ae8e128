"""Waiting for a part of the cluster to be there, without hiding that it never will be."""

import time
from collections.abc import Callable

from nomadserve.engines.local.api import Unreachable
from nomadserve.errors import TimedOut

POLL_S = 0.1


def wait_until(
    claim: Callable[[], bool], *, what: str, timeout_s: float, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Ask until `claim` holds; calls `meanwhile` between, which raises where waiting has become pointless.

    Raises:
        TimedOut: with the last answer, where there was one.
    """
    until = time.monotonic() + timeout_s
    last = ""
    while True:
        try:
            if claim():
                return
        except Unreachable as error:
            last = error.message
        meanwhile()
        if time.monotonic() > until:
            raise TimedOut(f"{what} did not happen within {timeout_s:.0f} s" + (f": {last}" if last else ""))
        time.sleep(POLL_S)
