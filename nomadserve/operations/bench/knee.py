"""Where to measure next, and where the knee is. Pure: steps in, a rate out.

The rate doubles until a step fails, then the gap between the last good and the first bad rate is halved (by ratio)
until it is small. A step that kept up with the offered rate and only missed the latency limit is tried once more, and
so is one that the generator was late for: a hiccup of the machine is not a limit of the replica.
"""

import math
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from nomadserve.operations.load import Outcome

GROWTH = 2.0
KEPT_UP = 0.95  # share of the offered rate: below it the replica is overloaded beyond doubt
RATE_MIN = 0.1
STEPS_MAX = 40
LAG_SHARE_MAX = 0.1  # of the latency limit: above it, the generator's lag blurs the verdict
LAG_MS_MIN = 5.0


class Verdict(StrEnum):
    """What a step tells about the replica."""

    good = "good"
    slow = "too slow"
    errors = "errors"
    generator = "generator too late"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a good step keeps: a 99th percentile in seconds, and a share of refused and failed requests (0 to 1)."""

    p99_s: float
    error_share: float

    def judge(self, outcome: Outcome) -> Verdict:
        """The verdict on one step.

        The generator is blamed where its own lateness is large, and is what the step fails by.
        """
        if outcome.error_share > self.error_share:
            return Verdict.errors
        limit_ms, p99_ms = self.p99_s * 1e3, outcome.latency_ms.get("p99", math.inf)
        if p99_ms <= limit_ms:
            return Verdict.good
        is_blurred = self.is_late(outcome) and p99_ms - outcome.lag_ms["p99"] <= limit_ms
        return Verdict.generator if is_blurred else Verdict.slow

    def is_late(self, outcome: Outcome) -> bool:
        """Whether requests left so late that something kept the generator from its work."""
        return outcome.lag_ms.get("p99", 0.0) > max(LAG_MS_MIN, LAG_SHARE_MAX * self.p99_s * 1e3)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One measured rate.

    Attributes:
        is_late: the generator was kept from its work, and what it measured is in doubt.
        batch_rows: mean rows of a batch during the step; None where the replica's metrics can't be read.
        cpu_cores: processor time of the replica over the step; None likewise.
    """

    outcome: Outcome
    verdict: Verdict
    is_late: bool = False
    batch_rows: float | None = None
    cpu_cores: float | None = None

    @property
    def rate(self) -> float:
        """Offered, requests a second."""
        return self.outcome.rate


def next_rate(steps: Sequence[Step], *, start: float, precision: float, rate_max: float) -> float | None:
    """The rate to measure next; None when the knee is found, or can't be.

    start: of the first step.  precision: how far the knee may lie below the first bad rate, as a share.
    """
    if not steps:
        return rounded(min(start, rate_max))
    last = steps[-1]
    if len(steps) >= STEPS_MAX:
        return None
    if needs_second_try(steps):
        return last.rate
    if last.verdict is Verdict.generator:
        return None
    good, bad = bracket(steps)
    if bad is None:
        return None if good >= rate_max else rounded(min(good * GROWTH, rate_max))
    if good == 0.0:
        return rounded(bad / GROWTH) if bad / GROWTH >= RATE_MIN else None
    middle = rounded(math.sqrt(good * bad))
    return middle if bad / good > 1 + precision and good < middle < bad else None


def needs_second_try(steps: Sequence[Step]) -> bool:
    """Whether the last step may have failed by a hiccup, and was tried only once."""
    last = steps[-1]
    kept_up = last.outcome.throughput >= KEPT_UP * last.rate
    is_doubtful = last.is_late or (last.verdict is Verdict.slow and kept_up)
    return last.verdict is not Verdict.good and is_doubtful and sum(step.rate == last.rate for step in steps) == 1


def bracket(steps: Sequence[Step]) -> tuple[float, float | None]:
    """The highest rate that passed below all that failed (0.0: none), and the lowest that failed (None: none).

    Of two tries of a rate the second counts.
    """
    verdicts = {step.rate: step.verdict for step in steps}
    bad = min((rate for rate, verdict in verdicts.items() if verdict is not Verdict.good), default=None)
    good = [rate for rate, verdict in verdicts.items() if verdict is Verdict.good and (bad is None or rate < bad)]
    return max(good, default=0.0), bad


def knee_of(steps: Sequence[Step]) -> Step | None:
    """The step at the highest rate that the replica takes; None where none passed."""
    good, _ = bracket(steps)
    return next((step for step in reversed(steps) if step.rate == good and step.verdict is Verdict.good), None)


def rounded(rate: float) -> float:
    """The rate to three digits: what is measured can be typed."""
    return float(f"{rate:.3g}")
