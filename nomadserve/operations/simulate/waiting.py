"""A version that may sleep (`min = 0`): the gateway's waiting room, and the check for the last replica. Pure.

Mirrors `nomadserve.promql.awake` and `jobs/waiting.lua`.
"""

from collections import deque
from collections.abc import Sequence

from nomadserve.operations.simulate.replicas import Capacity, Replica, Tick, serve
from nomadserve.spec import Scaling


class WaitingRoom:
    """Requests that came while nobody was ready.

    expected_s: from the first of them until its answer; where that is more than `hold`, nobody is kept.
    """

    def __init__(self, scaling: Scaling, *, expected_s: float) -> None:
        self._hold_s = float(scaling.hold) if scaling.sleeps and expected_s <= scaling.hold else 0.0
        self._kept: deque[tuple[float, float]] = deque()

    def serve(self, now: float, ready: list[Replica], offered: float, seconds: float, capacity: Capacity) -> Tick:
        """One tick, as `replicas.serve`: what was kept goes on as soon as a replica is ready."""
        if ready:
            kept, self._kept = self._kept, deque()
            late = sum(requests for _, requests in kept)
            tick = serve(ready, offered + late, seconds, capacity)
            return Tick(offered, tick.refused, (*tick.waits, *((now - at, requests) for at, requests in kept)))
        if not self._hold_s:
            return serve([], offered, seconds, capacity)
        if offered:
            self._kept.append((now, offered))
        refused = 0.0
        while self._kept and self._kept[0][0] <= now - self._hold_s:
            refused += self._kept.popleft()[1]
        return Tick(offered, refused, ())


class Awake:
    """Whether the last replica is needed."""

    def __init__(self, scaling: Scaling) -> None:
        self._idle_s = float(scaling.idle)
        self._asked_at = float("-inf")

    def note(self, now: float, offered: float, replicas: Sequence[Replica]) -> None:
        """Look at one tick: at what came in, and at what still waits."""
        if offered or any(replica.queued for replica in replicas if replica.is_running(now)):
            self._asked_at = now

    def answer(self, now: float, replicas: Sequence[Replica]) -> float:
        """1 while something moved within `idle`, and while no replica has been ready for that long; else 0."""
        ready = [replica for replica in replicas if replica.is_ready(now)]
        is_new = bool(ready) and all(replica.ready_at > now - self._idle_s for replica in ready)
        return float(self._asked_at > now - self._idle_s or is_new)
