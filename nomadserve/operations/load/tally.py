"""Counts and percentiles of one load; no clock, no socket."""

import math
from collections import Counter
from collections.abc import Sequence

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
LAG_PERCENTILES = {"p50": 50.0, "p99": 99.0}

OK = 200
REFUSED = 503


class Tally:
    """What became of the requests that count.

    Attributes:
        sent: requests that were due.
        latencies_s: of good answers, from when they were due.
        lags_s: of every request, from when it was due to when it left.
        failures: requests with neither a good answer nor a refusal, by cause.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.refused = 0
        self.latencies_s: list[float] = []
        self.lags_s: list[float] = []
        self.failures: Counter[str] = Counter()

    @property
    def ok(self) -> int:
        """Requests answered with 200."""
        return len(self.latencies_s)

    def answered(self, status: int, latency_s: float) -> None:
        """A reply came, in time."""
        if status == OK:
            self.latencies_s.append(latency_s)
        elif status == REFUSED:
            self.refused += 1
        else:
            self.failures[f"status {status}"] += 1


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all values do not exceed (nearest rank). `ordered` is sorted, not empty."""
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(rank, 1) - 1]


def in_ms(values_s: Sequence[float], percentiles: dict[str, float]) -> dict[str, float]:
    """Percentiles and the maximum, in milliseconds; empty for no values."""
    if not values_s:
        return {}
    ordered = sorted(values_s)
    found = {name: percentile(ordered, percent) for name, percent in percentiles.items()}
    return {name: round(value * 1e3, 3) for name, value in {**found, "max": ordered[-1]}.items()}
