"""When a schedule holds, as the Autoscaler decides it: its last start lies after its last end. Pure.

Source: `activeAt` in nomad-autoscaler 0.5.0, policy/schedule.go; cron as github.com/hashicorp/cronexpr reads it.
"""

from datetime import UTC, datetime, timedelta

from nomadserve.spec import Cron, Schedule, zone_of

LOOK_BACK_DAYS = 366
MINUTE = timedelta(minutes=1)


class Window:
    """One schedule over the minutes of a simulation, which must be asked in order."""

    def __init__(self, schedule: Schedule, at: datetime) -> None:
        zone = zone_of(schedule.timezone)
        self.min = schedule.min
        self.name = schedule.name
        self._start, self._end = (Cron(Cron(text).in_utc(zone, at)) for text in (schedule.start, schedule.end))
        self._minute = at.astimezone(UTC).replace(second=0, microsecond=0)
        self._is_active = self._was_started(self._minute)

    def is_active(self, at: datetime) -> bool:
        """Whether it holds at that time, which must not lie before the last one asked for."""
        now = at.astimezone(UTC)
        while self._minute + MINUTE <= now:
            self._minute += MINUTE
            self._is_active = self._after(self._minute, self._is_active)
        return self._is_active

    def _was_started(self, minute: datetime) -> bool:
        """Look back for the last start or end."""
        for back in range(LOOK_BACK_DAYS * 24 * 60):
            then = minute - back * MINUTE
            if names(self._end, then):
                return False
            if names(self._start, then):
                return True
        return False

    def _after(self, minute: datetime, before: bool) -> bool:
        if names(self._end, minute):
            return False
        return before or names(self._start, minute)


def names(cron: Cron, minute: datetime) -> bool:
    """Whether the line names this minute. Where both kinds of days are restricted, either will do, as in cron."""
    if minute.minute not in cron.minutes or minute.hour not in cron.hours or minute.month not in cron.months:
        return False
    is_day = minute.day in cron.days
    is_weekday = minute.isoweekday() % 7 in cron.weekdays
    if len(cron.days) < 31 and len(cron.weekdays) < 7:
        return is_day or is_weekday
    return is_day and is_weekday
