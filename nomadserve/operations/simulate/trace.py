"""Traffic over time: from a CSV file, or from what Prometheus remembers."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

import msgspec

from nomadserve.errors import WrongInput
from nomadserve.prometheus_api import PrometheusApi

COLUMNS = ("seconds", "requests_per_second")
STEP_S = 30.0  # fine enough for a day, and short enough for one answer of Prometheus (11,000 points at most)
A_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Requests a second, each rate holding from its time until the next one.

    Attributes:
        points: (seconds, rate), the seconds rising from 0.
        seconds: where the last rate ends.
        starts_at: the moment of second 0, which schedules depend on.
        origin: in words.
    """

    points: list[tuple[float, float]]
    seconds: float
    starts_at: datetime = A_MONDAY
    origin: str = ""

    @property
    def rate_max(self) -> float:
        """The highest rate."""
        return max(rate for _, rate in self.points)


def from_csv(text: str, *, origin: str, starts_at: datetime = A_MONDAY) -> Trace:
    """Read `seconds,requests_per_second`. The last rate lasts as long as the one before it.

    Raises:
        WrongInput: naming the line that can't be read.
    """
    rows = csv.DictReader(io.StringIO(text))
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise WrongInput(f"`{origin}` has no column `{missing[0]}`", hint=f"its first line is `{','.join(COLUMNS)}`")
    points = []
    for row in rows:
        try:
            points.append((float(row[COLUMNS[0]]), float(row[COLUMNS[1]])))
        except (TypeError, ValueError) as error:
            raise WrongInput(f"`{origin}`, line {rows.line_num}: no two numbers", hint="such as `60,12.5`") from error
    return from_points(points, origin=origin, starts_at=starts_at)


def from_points(points: Sequence[tuple[float, float]], *, origin: str, starts_at: datetime) -> Trace:
    """A trace whose first point becomes second 0.

    Raises:
        WrongInput: fewer than two points, times that don't rise, rates below zero.
    """
    if len(points) < 2:
        raise WrongInput(f"`{origin}` holds {len(points)} points", hint="a trace needs two at least")
    for (before, _), (after, _) in pairwise(points):
        if not after > before:
            raise WrongInput(f"`{origin}`: second {after:g} comes after {before:g}", hint="sort the lines by time")
    if any(not 0 <= rate < float("inf") for _, rate in points):
        raise WrongInput(f"`{origin}` holds a rate that is no number of 0 or more", hint="rates are requests a second")
    first = points[0][0]
    shifted = [(at - first, rate) for at, rate in points]
    return Trace(points=shifted, seconds=2 * shifted[-1][0] - shifted[-2][0], starts_at=starts_at, origin=origin)


def from_history(
    prometheus: PrometheusApi, service: str, *, end: datetime, seconds: float, step_s: float = STEP_S
) -> Trace:
    """What all versions of a service were asked, from Prometheus, until `end`.

    Raises:
        WrongInput: it remembers nothing of that service.
    """
    query = f'sum(rate(nomadserve_requests_total{{service="{service}",outcome!="invalid"}}[{2 * step_s:g}s]))'
    until = end.timestamp()
    points = prometheus.history(query, start=until - seconds, end=until, step_s=step_s)
    if len(points) < 2:
        raise WrongInput(
            f"Prometheus at {prometheus.address} remembers no requests to `{service}`",
            hint="name another service by `--service`, or a longer time by `--since`",
        )
    origin = f"{service}, as Prometheus at {prometheus.address} remembers it"
    return from_points(points, origin=origin, starts_at=datetime.fromtimestamp(points[0][0], UTC))
