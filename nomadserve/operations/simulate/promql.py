"""The two PromQL functions that the policies use, as Prometheus computes them. Pure.

Source: `extrapolatedRate` and `funcAvgOverTime` in prometheus/promql/functions.go (2.42). A range `[w]` at time t takes
the samples in (t - w, t], where Prometheus 2 includes the left edge too; with scrapes it rarely matters.
"""

from collections.abc import Sequence

Sample = tuple[float, float]
"""When it was scraped, in seconds, and its value."""

EXTRAPOLATION_MAX = 1.1  # mean distances between samples; a gap at an edge that is longer is not filled


def rate(samples: Sequence[Sample], at: float, window: float) -> float | None:
    """Increase a second of a counter that never falls; None with fewer than two samples in the window."""
    inside = within(samples, at, window)
    if len(inside) < 2:
        return None
    (first_at, first), (last_at, last) = inside[0], inside[-1]
    sampled = last_at - first_at
    between = sampled / (len(inside) - 1)
    to_start, to_end = first_at - (at - window), at - last_at
    increase = last - first
    if increase > 0 and first >= 0:
        # The counter can't have been below zero: it is not extrapolated beyond where it was.
        to_start = min(to_start, sampled * first / increase)
    covered = sampled
    covered += to_start if to_start < between * EXTRAPOLATION_MAX else between / 2
    covered += to_end if to_end < between * EXTRAPOLATION_MAX else between / 2
    return increase * (covered / sampled) / window


def average(samples: Sequence[Sample], at: float, window: float) -> float | None:
    """Mean of a gauge's samples in the window; None without any."""
    inside = within(samples, at, window)
    return sum(value for _, value in inside) / len(inside) if inside else None


def within(samples: Sequence[Sample], at: float, window: float) -> Sequence[Sample]:
    """The samples of `[window]` at a time. They are in order; only the last few are looked at."""
    end = len(samples)
    while end and samples[end - 1][0] > at:
        end -= 1
    start = end
    while start and samples[start - 1][0] >= at - window:
        start -= 1
    return samples[start:end]
