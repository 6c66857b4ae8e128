from datetime import UTC, datetime, timedelta

import pytest

from nomadserve.operations.simulate.clock import Window, names
from nomadserve.spec import Cron, Schedule

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


def window(start: str, end: str, *, at: datetime = MONDAY, timezone: str = "UTC") -> Window:
    return Window(Schedule(name="office", start=start, end=end, min=3, timezone=timezone), at)


def hours_active(found: Window, days: int = 7) -> list[int]:
    """The hours since Monday in which it holds."""
    return [hour for hour in range(24 * days) if found.is_active(MONDAY + timedelta(hours=hour))]


def test_office_hours_hold_from_start_to_end_on_weekdays() -> None:
    assert hours_active(window("0 9 * * 1-5", "0 17 * * 1-5")) == [
        24 * day + hour for day in range(5) for hour in range(9, 17)
    ]


def test_a_night_spans_midnight() -> None:
    assert hours_active(window("0 22 * * *", "0 6 * * *"), days=1) == [*range(6), 22, 23]


def test_a_window_that_began_before_the_simulation_holds_at_its_start() -> None:
    assert window("0 9 * * 5", "0 8 * * 2").is_active(MONDAY)


def test_a_zone_moves_the_hours() -> None:
    assert hours_active(window("0 9 * * *", "0 17 * * *", timezone="America/New_York"), days=1) == [*range(14, 22)]


def test_start_and_end_at_the_same_minute_hold_nothing() -> None:
    assert hours_active(window("0 9 * * *", "0 9 * * *")) == []


@pytest.mark.parametrize(
    ("line", "day", "expected"),
    [
        ("0 0 13 * 5", datetime(2024, 9, 13), True),
        ("0 0 13 * 5", datetime(2024, 9, 20), True),  # a Friday: either kind of day will do
        ("0 0 13 * 5", datetime(2024, 9, 21), False),
        ("0 0 * * 0", datetime(2024, 9, 22), True),
        ("0 0 1 1 *", datetime(2024, 2, 1), False),
    ],
)
def test_days_are_named_as_cron_names_them(line: str, day: datetime, expected: bool) -> None:
    assert names(Cron(line), day) is expected
