from datetime import UTC, datetime

import pytest

from nomadserve.errors import WrongInput
from nomadserve.operations.simulate.trace import from_csv, from_history
from nomadserve.prometheus_api import PrometheusApi

HEAD = "seconds,requests_per_second\n"


def test_a_file_becomes_rates_from_second_zero() -> None:
    trace = from_csv(HEAD + "60,1\n120,2.5\n", origin="day.csv")
    assert trace.points == [(0, 1), (60, 2.5)]
    assert trace.rate_max == 2.5


def test_the_last_rate_lasts_as_long_as_the_one_before() -> None:
    assert from_csv(HEAD + "0,1\n60,2\n90,3\n", origin="day.csv").seconds == 120


def test_other_columns_are_passed_over() -> None:
    text = "day,requests_per_second,seconds\nMon,3,0\nMon,4,10\n"
    assert from_csv(text, origin="day.csv").points == [(0, 3), (10, 4)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column `seconds`"),
        ("seconds,rps\n0,1\n", "no column `requests_per_second`"),
        (HEAD, "holds 0 points"),
        (HEAD + "0,1\n", "holds 1 points"),
        (HEAD + "0,1\n10,many\n", "line 3: no two numbers"),
        (HEAD + "0,1\n10\n", "line 3: no two numbers"),
        (HEAD + "10,1\n10,2\n", "second 10 comes after 10"),
        (HEAD + "0,-1\n10,2\n", "no number of 0 or more"),
        (HEAD + "0,nan\n10,2\n", "no number of 0 or more"),
    ],
)
def test_what_is_no_trace_is_refused(text: str, said: str) -> None:
    with pytest.raises(WrongInput, match=said):
        from_csv(text, origin="day.csv")


class Remembers(PrometheusApi):
    """A Prometheus with these points."""

    def __init__(self, *points: tuple[float, float]) -> None:
        super().__init__("http://prometheus.example")
        self.points = list(points)
        self.asked = ""

    def history(self, query: str, *, start: float, end: float, step_s: float) -> list[tuple[float, float]]:
        self.asked = query
        return [(at, value) for at, value in self.points if start <= at <= end]


def test_prometheus_remembers_all_versions_of_a_service_and_when() -> None:
    end = datetime(2025, 3, 3, 12, tzinfo=UTC)
    begin = end.timestamp() - 3600
    prometheus = Remembers((begin - 30, 9), (begin, 5), (begin + 30, 6), (end.timestamp(), 7))
    trace = from_history(prometheus, "digits", end=end, seconds=3600)
    assert trace.points == [(0, 5), (30, 6), (3600, 7)]
    assert trace.starts_at == datetime(2025, 3, 3, 11, tzinfo=UTC)
    assert 'service="digits"' in prometheus.asked
    assert "version" not in prometheus.asked


def test_a_prometheus_without_memory_is_told() -> None:
    with pytest.raises(WrongInput, match="remembers no requests to `digits`"):
        from_history(Remembers(), "digits", end=datetime.now(UTC), seconds=3600)
