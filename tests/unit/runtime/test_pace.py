import math

import pytest

from nomadserve_runtime import policy
from nomadserve_runtime.calibration import BatchTime, Calibration
from nomadserve_runtime.pace import Pace

CALIBRATION = Calibration(table=(BatchTime(1, 0.1), BatchTime(4, 0.4)))


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pace_after(time: Time, *batches_s: float, rows: int = 4, parallel: int = 1) -> Pace:
    """That of an engine whose batches came back after so long each, one after the other."""
    pace = Pace(CALIBRATION, parallel=parallel, clock=time)
    pace.start()
    for batch_s in batches_s:
        time.now += batch_s
        pace.count(rows, is_answered=True)
    return pace


def test_the_rate_is_that_of_the_last_batches() -> None:
    assert pace_after(Time(), 0.4).rows_per_second == pytest.approx(10)
    assert pace_after(Time(), *20 * [0.4], *30 * [0.5]).rows_per_second == pytest.approx(8, rel=0.01)


def test_slowness_is_how_much_longer_batches_take_than_when_they_were_calibrated() -> None:
    assert pace_after(Time()).slowness == 1.0
    assert pace_after(Time(), *30 * [0.4]).slowness == pytest.approx(1.0)
    assert pace_after(Time(), *30 * [0.5]).slowness == pytest.approx(1.25, rel=0.01)


def test_a_short_batch_that_was_held_up_says_little_of_long_ones() -> None:
    time = Time()
    pace = pace_after(time, *30 * [0.4])
    time.now += 0.3  # three times its time
    pace.count(1, is_answered=True)
    assert pace.slowness < 1.2


def test_a_new_speed_is_known_after_a_second_or_five_batches() -> None:
    slow = pace_after(Time(), *30 * [0.4], *10 * [0.8])
    assert slow.slowness > 1.8
    quick = Calibration(table=(BatchTime(4, 0.001),))
    time = Time()
    pace = Pace(quick, parallel=1, clock=time)
    for took_s in (*1000 * [0.001], *1500 * [0.002]):
        time.now += took_s
        pace.count(4, is_answered=True)
    assert pace.slowness > 1.8


def test_nothing_is_told_of_an_engine_that_nobody_timed() -> None:
    assert Pace(Calibration(), parallel=1, clock=Time()).answer_by(3) == math.inf


def test_rows_are_told_to_be_answered_a_little_later_than_batches_of_even_time_are_back() -> None:
    time = Time()
    pace = pace_after(time, *30 * [0.4])
    time.now += 0.05  # since then, the first of them are under way
    assert pace.answer_by(12) - time.now == pytest.approx(12 * 0.1 * (1 + policy.ROOM_MIN) - 0.05)


def test_uneven_batches_are_told_to_be_back_later() -> None:
    time = Time()
    pace = pace_after(time, *15 * [0.3, 0.5])
    room = (pace.answer_by(20) - time.now) / (20 * 0.1) - 1
    assert policy.ROOM_MIN < room < 1.2


def test_what_is_told_follows_the_speed_that_was_reached() -> None:
    time = Time()
    pace = pace_after(time, *30 * [0.8])
    assert pace.answer_by(8) - time.now >= 8 * 0.2


def test_batches_side_by_side_come_back_that_much_sooner() -> None:
    time = Time()
    pace = pace_after(time, *30 * [0.2], parallel=2)
    assert pace.answer_by(16) - time.now == pytest.approx(16 * 0.05 * (1 + policy.ROOM_MIN))
