"""Quantities, cron lines, and the Structs of a service."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from nomadserve.spec import BadCron, Cron, Mebibytes, MemoryBound, Model, NotOneLine, Seconds, Service, violations

WINTER = datetime(2030, 1, 15, tzinfo=UTC)
SUMMER = datetime(2030, 7, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds", "shortest"),
    [
        ("5ms", 0.005, "5ms"),
        ("0.5ms", 0.0005, "0.5ms"),
        ("250 ms", 0.25, "250ms"),
        ("1.5s", 1.5, "1500ms"),
        ("90s", 90, "90s"),
        ("1m30s", 90, "90s"),
        ("300s", 300, "5m"),
        ("2h", 7200, "2h"),
        ("1h30m", 5400, "90m"),
        ("0s", 0, "0s"),
        ("0.1s", 0.1, "100ms"),
    ],
)
def test_durations_are_read_and_written_as_go_writes_them(text: str, seconds: float, shortest: str) -> None:
    assert Seconds.parse(text) == seconds
    assert Seconds.parse(text).text == shortest
    assert Seconds.parse(shortest) == seconds


@pytest.mark.parametrize("wrong", ["", "5", 5, 0.5, "5 seconds", "-5s", "s", "5s!", "1d", True, None, ["5s"]])
def test_a_duration_without_its_unit_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="a time with its unit"):
        Seconds.parse(wrong)


@pytest.mark.parametrize(
    ("text", "mebibytes", "shortest"),
    [
        ("512 MiB", 512, "512 MiB"),
        ("2GiB", 2048, "2 GiB"),
        ("1.5 GiB", 1536, "1536 MiB"),
        ("1 TiB", 2**20, "1024 GiB"),
        ("1 MB", 1, "1 MiB"),
        ("2 GB", 1908, "1908 MiB"),  # 1907.3…, rounded up: never less than asked for
    ],
)
def test_memory_is_counted_in_whole_mebibytes(text: str, mebibytes: int, shortest: str) -> None:
    assert Mebibytes.parse(text) == mebibytes
    assert Mebibytes.parse(text).text == shortest


@pytest.mark.parametrize("wrong", ["512", 512, "2 gib", "2 GHz", "0 MiB", "-1 GiB", "GiB", None])
def test_memory_without_its_unit_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="an amount of memory with its unit"):
        Mebibytes.parse(wrong)


@pytest.mark.parametrize(
    ("text", "operator", "mebibytes"),
    [(">= 24 GiB", ">=", 24576), ("24 GiB", ">=", 24576), ("<40GiB", "<", 40960), ("= 512 MiB", "=", 512)],
)
def test_a_bound_on_memory_has_an_operator_and_an_amount(text: str, operator: str, mebibytes: int) -> None:
    bound = MemoryBound.parse(text)
    assert (bound.operator, bound.amount) == (operator, mebibytes)


@pytest.mark.parametrize("wrong", [">= 24", "=> 24 GiB", "> ", "", 24])
def test_a_bound_without_its_unit_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="a bound on memory with its unit"):
        MemoryBound.parse(wrong)


@pytest.mark.parametrize(
    ("line", "zone", "at", "in_utc"),
    [
        ("0  8 * * MON-FRI", "UTC", SUMMER, "0 8 * * MON-FRI"),
        ("0 8 * * 1-5", "Europe/Berlin", WINTER, "0 7 * * 1-5"),
        ("0 8 * * 1-5", "Europe/Berlin", SUMMER, "0 6 * * 1-5"),
        ("0 8 * * 1-5", "Asia/Tokyo", WINTER, "0 23 * * 0-4"),
        ("0 20 * * SUN", "America/New_York", WINTER, "0 1 * * 1"),
        ("0 20 * * 6", "America/New_York", WINTER, "0 1 * * 0"),
        ("15 8 * * *", "Asia/Kolkata", WINTER, "45 2 * * *"),
        ("*/15 * * * *", "Europe/Berlin", WINTER, "0,15,30,45 * * * *"),
        ("*/30 * * * *", "Asia/Kolkata", WINTER, "0,30 * * * *"),
        ("0 6-12 * * *", "Asia/Tokyo", WINTER, "0 0-3,21-23 * * *"),
        ("30 9 1 JAN *", "Asia/Tokyo", WINTER, "30 0 1 1 *"),
        ("0 8,20 * 6-8 *", "Europe/Berlin", SUMMER, "0 6,18 * 6-8 *"),
        ("0 12/6 * * *", "Europe/Berlin", WINTER, "0 11,17 * * *"),
    ],
)
def test_a_cron_line_is_moved_to_utc(line: str, zone: str, at: datetime, in_utc: str) -> None:
    assert Cron(line).in_utc(None if zone == "UTC" else ZoneInfo(zone), at) == in_utc


@pytest.mark.parametrize(
    ("line", "zone", "reason"),
    [
        ("0 6-12 * * 1-5", "Asia/Tokyo", "two different days"),
        ("0 8 1 * *", "Asia/Tokyo", "another date"),
        ("0 8 * 4 *", "Asia/Tokyo", "another date"),
        ("0,45 8 * * *", "Asia/Kolkata", "different hours"),
    ],
)
def test_a_cron_line_that_takes_two_in_utc_is_refused(line: str, zone: str, reason: str) -> None:
    with pytest.raises(NotOneLine, match=reason):
        Cron(line).in_utc(ZoneInfo(zone), WINTER)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 8 * *", "not 4"),
        ("0 0 8 * * 1", "not 6"),
        ("60 8 * * *", "`60` does not name minutes"),
        ("0 24 * * *", "`24` does not name hours"),
        ("0 8 0 * *", "`0` does not name days of the month"),
        ("0 8 * 13 *", "`13` does not name months"),
        ("0 8 * * 7", "`7` does not name weekdays"),
        ("0 8 * * FUN", "`FUN` does not name weekdays"),
        ("0 8 * * FRI-MON", "`FRI-MON` does not name weekdays"),
        ("*/0 8 * * *", r"`\*/0` does not name minutes"),
        ("1, 8 * * *", "`1,` does not name minutes"),
        ("-1 8 * * *", "`-1` does not name minutes"),
    ],
)
def test_a_broken_cron_line_is_refused(line: str, reason: str) -> None:
    with pytest.raises(BadCron, match=reason):
        Cron(line)


def test_a_cron_line_in_utc_names_the_same_minutes_of_the_week() -> None:
    """Against a slow but plain count of all minutes of a week, in zones with every kind of offset."""
    monday = datetime(2030, 1, 7, tzinfo=UTC)  # the weekdays of the line decide, so any Monday does
    for zone in ("Asia/Tokyo", "America/New_York", "Asia/Kolkata", "Australia/Eucla", "Pacific/Marquesas"):
        for line in ("0 2 * * 1", "15 23 * * 5", "30 12 * * 0,3", "*/30 22 * * 6", "45 0 * * *"):
            try:
                moved = Cron(Cron(line).in_utc(ZoneInfo(zone), WINTER))
            except NotOneLine:
                continue
            shift = ZoneInfo(zone).utcoffset(monday.replace(tzinfo=None))
            assert shift is not None
            minutes = int(shift.total_seconds() // 60)
            local = {(moment + minutes) % (7 * 1440) for moment in minutes_of_week(moved)}
            assert local == minutes_of_week(Cron(line)), (zone, line)


def minutes_of_week(cron: Cron) -> set[int]:
    return {day * 1440 + hour * 60 + minute for day in cron.weekdays for hour in cron.hours for minute in cron.minutes}


def test_a_service_cannot_be_changed() -> None:
    service = Service(name="digits")
    with pytest.raises(AttributeError):
        service.name = "letters"  # type: ignore[misc]


def test_job_and_count_follow_from_the_service() -> None:
    assert Service(name="digits").job_id == "digits-v1"
    assert Service(name="digits").count == 1
    assert Service(name="digits", replicas=3).count == 3


def test_a_sound_service_breaks_no_rule() -> None:
    model = Model(name="digits", source="/models/digits.onnx")
    assert violations(Service(name="digits", models=(model,))) == []


@pytest.mark.parametrize(
    ("source", "is_remote"),
    [
        ("models/digits.onnx", False),
        ("/models/digits.onnx", False),
        ("./a:b.onnx", False),
        ("https://models.example/digits.onnx", True),
        ("s3::https://s3.amazonaws.com/bucket/digits.onnx", True),
        ("gcs::https://www.googleapis.com/storage/v1/bucket/digits.onnx", True),
        ("s3://bucket/digits.onnx", True),
    ],
)
def test_an_address_is_told_from_a_path(source: str, is_remote: bool) -> None:
    assert Model(name="digits", source=source).is_remote is is_remote
