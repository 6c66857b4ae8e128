"""Adds up what the ticks of a simulation tell. Pure."""

from collections import Counter

from nomadserve.operations.simulate.replicas import Tick
from nomadserve.operations.simulate.result import Moment

MOMENTS_MAX = 720
NEGLIGIBLE = 1e-9  # requests; less is the rounding of fractions


class Ledger:
    """Totals, percentiles of the wait, and a picture in at most `MOMENTS_MAX` moments.

    tick_s: seconds of each tick.  ticks: how many there will be.
    """

    def __init__(self, *, tick_s: float, ticks: int) -> None:
        self._tick_s = tick_s
        self._per_moment = -(-ticks // MOMENTS_MAX)
        self._waits: Counter[int] = Counter()  # milliseconds → requests, in millionths
        self._refusing_s = 0.0
        self._row: list[tuple[float, Tick, int, int]] = []
        self.offered = self.refused = self.refused_longest_s = self.replica_seconds = 0.0
        self.replicas_max = 0
        self.moments: list[Moment] = []

    def note(self, at_s: float, tick: Tick, *, count: int, ready: int) -> None:
        """Take one tick in. count: replicas that Nomad has, or is asked to have.  ready: those that answer."""
        self.offered += tick.offered
        self.refused += tick.refused
        self._refusing_s = self._refusing_s + self._tick_s if tick.refused > NEGLIGIBLE else 0.0
        self.refused_longest_s = max(self.refused_longest_s, self._refusing_s)
        self.replica_seconds += count * self._tick_s
        self.replicas_max = max(self.replicas_max, count)
        for wait_s, requests in tick.waits:
            self._waits[round(wait_s * 1e3)] += round(requests * 1e6)
        self._row.append((at_s, tick, count, ready))
        if len(self._row) == self._per_moment:
            self.close_moment()

    def close_moment(self) -> None:
        """Make a moment of the ticks since the last one."""
        if not self._row:
            return
        length = len(self._row)
        seconds = length * self._tick_s
        self.moments.append(
            Moment(
                at_s=self._row[0][0],
                offered=round(sum(tick.offered for _, tick, _, _ in self._row) / seconds, 4),
                refused=round(sum(tick.refused for _, tick, _, _ in self._row) / seconds, 4),
                count=max(count for _, _, count, _ in self._row),
                ready=round(sum(ready for _, _, _, ready in self._row) / length, 3),
                wait_s=round(max(tick.wait_s for _, tick, _, _ in self._row), 4),
            )
        )
        self._row.clear()

    def wait_s(self, percent: float) -> float | None:
        """The wait that `percent` of the taken requests did not exceed; None without any."""
        left = self._waits.total() * percent / 100
        if not left:
            return None
        for wait_ms in sorted(self._waits):
            left -= self._waits[wait_ms]
            if left <= 0:
                break
        return wait_ms / 1e3
