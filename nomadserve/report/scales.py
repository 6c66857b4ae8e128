"""Numbers → places on an axis, and the round numbers to label it with."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

TICKS = 5  # about as many
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
MINUTE, HOUR = 60.0, 3600.0
CLOCK_STEPS = tuple(
    float(s) for s in (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600, 43200, 86400)
)


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`.

    Attributes:
        ticks: where to write a number.
        is_log: whether every factor of ten takes the same room.
        label: how a tick is written.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    is_log: bool = False
    label: Callable[[float], str] = lambda value: f"{value:g}"

    def share(self, value: float) -> float:
        """Where the value lies: 0.0 at `low`, 1.0 at `high`; what lies beyond is put on the edge."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear(values: Sequence[float]) -> Scale:
    """From 0 to a round number at or above all values."""
    highest = max(values, default=0.0)
    if highest <= 0:
        return Scale(0.0, 1.0, (0.0, 1.0), label=plain)
    step = round_up(highest / TICKS)
    count = math.ceil(highest / step - 1e-9)
    return Scale(0.0, step * count, tuple(round(step * n, 12) for n in range(count + 1)), label=plain)


def logarithmic(values: Sequence[float]) -> Scale:
    """Between powers of ten around all positive values, or their thirds where they lie close together."""
    positive = [value for value in values if value > 0] or [1.0]
    low = 10.0 ** math.floor(math.log10(min(positive)))
    high = 10.0 ** math.ceil(math.log10(max(positive)) + 1e-9)
    decades = round(math.log10(high / low))
    within = (1.0,) if decades > 3 else (1.0, 2.0, 5.0)
    ticks = [low * 10.0**decade * part for decade in range(decades) for part in within]
    return Scale(low, high, (*ticks, high), is_log=True, label=plain)


def clock(values: Sequence[float]) -> Scale:
    """Seconds from the first to the last value, labelled as hours, minutes or seconds."""
    low, high = min(values), max(values)
    if high <= low:
        high = low + 1.0
    step = next((step for step in CLOCK_STEPS if (high - low) / step <= TICKS + 2), CLOCK_STEPS[-1])
    ticks = tuple(n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1))
    return Scale(low, high, ticks, label=lambda value: _time(value, step))


def round_up(value: float) -> float:
    """The next number of the form 1, 2, 2.5, 5 × a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in STEPS if step * power >= value * (1 - 1e-9))


def plain(value: float) -> str:
    """A number as people write it: 2,500 and 0.25."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _time(value: float, step: float) -> str:
    if step >= HOUR:
        return f"{value / HOUR:g} h"
    return f"{value / MINUTE:g} min" if step >= MINUTE else f"{value:g} s"
