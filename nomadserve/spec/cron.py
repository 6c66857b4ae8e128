"""Cron lines: checked, and moved from a time zone to UTC, the only one that the autoscaler knows."""

import re
from collections.abc import Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS = (
    ("minutes", 0, 59, ()),
    ("hours", 0, 23, ()),
    ("days of the month", 1, 31, ()),
    ("months", 1, 12, _MONTHS),
    ("weekdays", 0, 6, _DAYS),
)
_PART = re.compile(r"(\*|(\w+)(?:-(\w+))?)(?:/(\d+))?")


class BadCron(ValueError):
    """A line that can't be read; the text says why."""


class NotOneLine(ValueError):
    """Moments that no single line can name in UTC; the text says why."""


class Cron:
    """The moments a cron line names, as five sets of numbers.

    Attributes:
        text: the line as written.
    """

    def __init__(self, text: str) -> None:
        words = text.split()
        if len(words) != len(_FIELDS):
            raise BadCron(f"a cron line has five fields (minute hour day month weekday), not {len(words)}")
        self.text = " ".join(words)
        self.minutes, self.hours, self.days, self.months, self.weekdays = (
            _expanded(word, *field) for word, field in zip(words, _FIELDS, strict=True)
        )

    def in_utc(self, timezone: ZoneInfo | None, at: datetime) -> str:
        """The same moments as one cron line in UTC, by the zone's offset at `at`; None means UTC already.

        A cron line can't follow daylight saving: after the clocks change, the line has to be rendered again.
        """
        offset = at.astimezone(timezone).utcoffset() if timezone else None
        if not offset:
            return self.text
        shift = -int(offset.total_seconds() // 60)
        moved = {divmod(hour * 60 + minute + shift, 60) for hour in self.hours for minute in self.minutes}
        hours, minutes = {hour % 24 for hour, _ in moved}, {minute for _, minute in moved}
        if len(moved) != len(hours) * len(minutes):
            raise NotOneLine("its minutes fall into different hours of UTC")
        return self._line(minutes, hours, days={hour // 24 for hour, _ in moved})

    def _line(self, minutes: set[int], hours: set[int], *, days: set[int]) -> str:
        """The line with new times of day, which lie `days` (-1, 0, 1) away from the local ones."""
        dated = not (_is_full(self.days, 2) and _is_full(self.months, 3))
        weekly = not _is_full(self.weekdays, 4)
        if days != {0} and dated:
            raise NotOneLine("some of its times fall on another date in UTC")
        if len(days) > 1 and weekly:
            raise NotOneLine("its times fall on two different days in UTC")
        weekdays = {(day + next(iter(days))) % 7 for day in self.weekdays} if weekly else self.weekdays
        sets = (minutes, hours, self.days, self.months, weekdays)
        return " ".join(_compact(numbers, index) for index, numbers in enumerate(sets))


def _expanded(word: str, name: str, low: int, high: int, names: tuple[str, ...]) -> set[int]:
    """All numbers that one field names: `1-5`, `*/15`, `MON,WED`."""
    numbers: set[int] = set()
    for part in word.split(","):
        match = _PART.fullmatch(part)
        step = int(match[4] or 1) if match else 0
        first, last = _ends(match, low, high, names) if match else (0, 0)
        if not match or step == 0 or not low <= first <= last <= high:
            raise BadCron(f"`{word}` does not name {name} ({low} to {high})")
        numbers.update(range(first, last + 1, step))
    return numbers


def _ends(match: re.Match[str], low: int, high: int, names: tuple[str, ...]) -> tuple[int, int]:
    """First and last number of one part of a field; -1 for a word that is no number."""
    if match[1] == "*":
        return low, high
    first = _number(match[2], low, names)
    if match[3]:
        return first, _number(match[3], low, names)
    return first, high if match[4] else first


def _number(word: str, low: int, names: tuple[str, ...]) -> int:
    if word.upper() in names:
        return names.index(word.upper()) + low
    return int(word) if word.isdecimal() else -1


def _is_full(numbers: set[int], index: int) -> bool:
    _, low, high, _ = _FIELDS[index]
    return len(numbers) == high - low + 1


def _compact(numbers: Iterable[int], index: int) -> str:
    """The shortest usual way to write a set: `*`, `8`, `1-5`, `0,30`."""
    numbers = set(numbers)
    if _is_full(numbers, index):
        return "*"
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)
