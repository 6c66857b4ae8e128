"""Whether the event loop looks out for the next request, for a moment, before it sleeps.

Many a client sends its next request as soon as it has its answer. Asleep, a processor core takes 40 µs to hear of it
(measured on a virtual machine), and only then does the head get read; awake, it reads the head while the client still
sends the body. So where nobody waits for an answer, and requests come that soon, the loop stays awake; where it did so
in vain, it sleeps until one came that soon again.
"""

import math
import time
from collections.abc import Callable

# A client on the same machine takes 20 to 150 µs from one reply to its next request.
LOOK_OUT_S = 200e-6


class Lookout:
    """Of one event loop.

    is_idle: whether nobody waits for an answer; while the engine computes, the core may be wanted by its thread.
    """

    def __init__(self, is_idle: Callable[[], bool], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_idle = is_idle
        self._clock = clock
        self._is_worthwhile = False
        self._idle_at = -math.inf

    def note_awakened(self) -> None:
        """Something has come that was waited for asleep."""
        self._is_worthwhile = self._is_worthwhile or self._clock() - self._idle_at < LOOK_OUT_S

    def look_out(self, look: Callable[[], bool]) -> None:
        """All replies of this turn are sent: look for what comes next, if that is worth while, until something has.

        look: reads what has come, if anything has, and says so.
        """
        if not self._is_idle():
            return
        self._idle_at = self._clock()
        if self._is_worthwhile:
            give_up_at = self._idle_at + LOOK_OUT_S
            while not look():
                if self._clock() >= give_up_at:
                    self._is_worthwhile = False
                    return
