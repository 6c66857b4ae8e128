"""What the policy's Prometheus checks answer: the queries of `nomadserve.promql`, as arithmetic. Pure.

wish    = ceil(load / target × (1 + overprovision))      at every 5th second
held    = the highest wish of the last `cooldown`; and, where there are more replicas than there were then, not
          fewer than there are; without data as many as there are
answer  = min(held, most replicas of the last `cooldown` + `max_scale_up`, `max`)
"""

import math
from collections import deque
from collections.abc import Sequence

from nomadserve.operations.simulate import promql
from nomadserve.operations.simulate.replicas import Capacity, Replica
from nomadserve.promql import LASTING_S, STEP_S
from nomadserve.spec import AnyTarget, BacklogSeconds, InFlight, RequestsPerSecond, Scaling

SIMULATED = (RequestsPerSecond, InFlight, BacklogSeconds)
"""Targets whose metric follows from the traffic; CPU, GPU and a query of one's own do not."""


class Known:
    """How many replicas Prometheus knew, at every 5th second."""

    def __init__(self, past_s: float) -> None:
        self._past_s = max(past_s, LASTING_S)
        self._counts: deque[tuple[float, int]] = deque()

    def note(self, now: float, count: int) -> None:
        """Keep a count, and forget those that nobody asks for."""
        self._counts.append((now, count))
        while self._counts and self._counts[0][0] <= now - self._past_s:
            self._counts.popleft()

    def least(self, now: float, past_s: float) -> int:
        """The fewest of the last `past_s` seconds."""
        return min((count for at, count in self._counts if at > now - past_s), default=0)

    def most(self) -> int:
        """The most of all that is kept."""
        return max((count for _, count in self._counts), default=0)

    @property
    def last(self) -> int:
        """The latest."""
        return self._counts[-1][1] if self._counts else 0


class Check:
    """One target's query, with the wishes it remembers."""

    def __init__(self, target: AnyTarget, scaling: Scaling, capacity: Capacity) -> None:
        assert isinstance(target, SIMULATED)
        self.target = target
        self._scaling = scaling
        self._capacity = capacity
        self._wishes: deque[tuple[float, int]] = deque()

    def note(self, now: float, replicas: Sequence[Replica]) -> None:
        """Compute the wish of now, as a subquery does at every 5th second."""
        wish = self._wish(now, replicas)
        if wish is not None:
            self._wishes.append((now, wish))
        while self._wishes and self._wishes[0][0] <= now - self._scaling.cooldown:
            self._wishes.popleft()

    def answer(self, now: float, replicas: Sequence[Replica], known: Known) -> float:
        """What the autoscaler is told."""
        scaling = self._scaling
        held = self._held(now, replicas, known)
        if scaling.max_scale_up is not None:
            held = min(held, known.most() + scaling.max_scale_up)
        return float(min(held, scaling.max))

    def _held(self, now: float, replicas: Sequence[Replica], known: Known) -> int:
        if self._scaling.cooldown <= STEP_S:
            wish = self._wish(now, replicas)
            return known.last if wish is None else wish
        wishes = [wish for _, wish in self._wishes]
        if self._scaling.cooldown > LASTING_S:
            lasting = known.least(now, LASTING_S)
            if lasting > known.least(now, self._scaling.cooldown):
                wishes.append(lasting)
        return max(wishes, default=known.last)

    def _wish(self, now: float, replicas: Sequence[Replica]) -> int | None:
        load = self._load(now, replicas)
        if load is None:
            return None
        # Rounded as PromQL's constants are, so that 1.1 × 10 is no 11.000000000000002.
        return math.ceil(round(load / self.target.value * (1 + self._scaling.overprovision), 9))

    def _load(self, now: float, replicas: Sequence[Replica]) -> float | None:
        """The sum over the replicas' series; None without any."""
        window = self.target.window
        if isinstance(self.target, RequestsPerSecond):
            found = [promql.rate(replica.requests, now, window) for replica in replicas]
        else:
            found = [promql.average(replica.in_flight, now, window) for replica in replicas]
        values = [value for value in found if value is not None]
        if not values:
            return None
        return sum(values) / (self._capacity.rate if isinstance(self.target, BacklogSeconds) else 1.0)
