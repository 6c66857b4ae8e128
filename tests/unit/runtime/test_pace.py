import math
from itertools import cycle, islice

import pytest

from nomadserve_runtime.pace import STRETCH_S_MIN, STRETCHES_MAX, Pace, slowness_range

# Of a batch of 1, 2, 3, 4 rows.
TIMES = (0.1, 0.2, 0.3, 0.4)


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pace_after(
    time: Time, *batches_s: float, rows: int = 4, times: tuple[float, ...] = TIMES, parallel: int = 1
) -> Pace:
    """That of an engine whose batches came back after so long each, one after the other."""
    pace = Pace(times, parallel=parallel, clock=time)
    pace.start()
    for batch_s in batches_s:
        time.now += batch_s
        pace.count(rows)
    return pace


def test_before_anything_came_back_batches_take_as_long_as_they_were_timed() -> None:
    pace = pace_after(Time())
    assert pace.soonest_s(8, 2) == pace.likely_s(8, 2) == pace.latest_s(8, 2) == pytest.approx(0.8)


def test_batches_are_counted_as_they_are_formed() -> None:
    # A GPU with time to spare: a batch takes as long as any other, however many rows are in it.
    pace = pace_after(Time(), times=(1.0, 1.0, 1.0, 1.0))
    assert [pace.likely_s(8, batches) for batches in (2, 3, 8)] == [2.0, 3.0, 8.0]
    uneven = pace_after(Time(), times=(1.0, 1.5, 1.75, 2.0))
    assert uneven.likely_s(5, 2) == 1.5 + 1.75  # two rows and three
    assert uneven.likely_s(12, 2) == 6.0, "more than fits into them, as others may still join"


def test_what_has_passed_of_the_running_batch_is_taken_off_the_wait_but_not_of_the_backlog() -> None:
    time = Time()
    pace = pace_after(time, *30 * [0.4])
    time.now += 0.15
    assert pace.soonest_s(8, 2) == pytest.approx(0.65)
    assert pace.latest_s(8, 2) == pytest.approx(0.65)
    assert pace.likely_s(8, 2) == pytest.approx(0.8)


def test_a_batch_that_should_be_back_may_be_at_once_but_nobody_promises_that() -> None:
    time = Time()
    pace = pace_after(time, *30 * [0.4])
    time.now += 99.0
    assert pace.soonest_s(4, 1) == 0.0
    assert pace.latest_s(4, 1) == pytest.approx(0.1)  # one row
    assert pace.latest_s(8, 2) == pytest.approx(0.4)


def test_even_batches_are_promised_as_they_came() -> None:
    pace = pace_after(Time(), *100 * [0.5])
    assert pace.soonest_s(8, 2) == pytest.approx(1.0)
    assert pace.likely_s(8, 2) == pytest.approx(1.0)
    assert pace.latest_s(8, 2) == pytest.approx(1.0), "no room is added that no batch has needed"


def test_the_fewer_batches_are_ahead_the_more_room_uneven_ones_get() -> None:
    # Every fourth takes three times as long: it may be the only one ahead, or one of eight.
    pace = pace_after(Time(), *islice(cycle([1.2, 0.4, 0.4, 0.4]), 100))
    assert pace.latest_s(4, 1) == pytest.approx(1.2)
    assert 2 * (3 * 0.4 + 1.2) <= pace.latest_s(32, 8) < 2.5 * (3 * 0.4 + 1.2)
    assert pace.soonest_s(4, 1) == pytest.approx(0.4)
    assert pace.soonest_s(32, 8) > 7 * 0.4
    assert pace.latest_s(32, 8) < 1.5 * pace.likely_s(32, 8)


def test_every_wait_among_uneven_batches_was_promised_and_none_was_called_hopeless() -> None:
    took = list(islice(cycle([0.3, 0.5, 0.35, 0.9, 0.4, 0.42, 0.3]), 200))
    for batches in (1, 2, 3, 5, 8, 20):
        time = Time()
        pace = pace_after(time, *took[:100])
        for number in range(100, 200 - batches):
            actual_s = sum(took[number : number + batches])
            assert pace.soonest_s(4 * batches, batches) <= actual_s * 1.000001
            assert actual_s <= pace.latest_s(4 * batches, batches) * 1.000001
            time.now += took[number]
            pace.count(4)


def test_a_wait_is_promised_by_a_stretch_of_about_as_much_work() -> None:
    pace = pace_after(Time(), *30 * [0.4], 1.2, *30 * [0.4])
    for batches in range(1, 20):
        slowest_s = (batches - 1) * 0.4 + 1.2
        assert slowest_s <= pace.latest_s(4 * batches, batches) * 1.000001 < 1.15 * slowest_s


def test_a_flood_is_known_after_two_batches_and_not_forgotten_with_the_next() -> None:
    time = Time()
    pace = pace_after(time, *50 * [0.4], *2 * [0.8])
    assert pace.latest_s(40, 10) == pytest.approx(8.0), "as if it went on like this"
    for _ in range(20):
        time.now += 0.4
        pace.count(4)
    assert pace.latest_s(4, 1) == pytest.approx(0.8), "it may come again at any moment"
    assert pace.latest_s(40, 10) < 5.6, "but never lasted so long"
    for _ in range(STRETCHES_MAX):
        time.now += 0.4
        pace.count(4)
    assert pace.latest_s(4, 1) == pytest.approx(0.4)


def test_an_engine_that_has_just_become_quicker_refuses_nobody_by_its_past() -> None:
    pace = pace_after(Time(), *50 * [4.0], *2 * [0.4])
    assert pace.soonest_s(40, 10) == pytest.approx(4.0)


def test_the_backlog_goes_by_the_last_second_or_the_last_five_batches() -> None:
    assert pace_after(Time(), *30 * [0.4], *10 * [0.8]).likely_s(4, 1) > 0.72
    quick = pace_after(Time(), *1000 * [0.001], *1500 * [0.002], times=4 * (0.001,))
    assert quick.likely_s(4, 1) > 0.0018


def test_a_short_batch_that_was_held_up_says_little_of_long_waits() -> None:
    time = Time()
    pace = pace_after(time, *30 * [0.4])
    time.now += 0.3  # three times its time
    pace.count(1)
    assert pace.likely_s(4, 1) < 0.48
    assert pace.latest_s(40, 10) < 6.5


def test_quick_batches_count_together_so_a_small_hiccup_is_no_stretch() -> None:
    rows, quick_s = 4, STRETCH_S_MIN / 20
    time = Time()
    pace = pace_after(time, *1000 * [quick_s], rows=rows, times=4 * (quick_s,))
    assert pace.latest_s(rows, 1) == pytest.approx(quick_s)
    time.now += STRETCH_S_MIN / 2  # eleven times what a batch takes
    pace.count(rows)
    for _ in range(100):
        time.now += quick_s
        pace.count(rows)
    assert 1.5 * quick_s < pace.latest_s(rows, 1) < 2.5 * quick_s


def test_batches_side_by_side_come_back_that_much_sooner() -> None:
    pace = pace_after(Time(), *70 * [0.2], parallel=2)
    assert [pace.soonest_s(16, 4), pace.likely_s(16, 4), pace.latest_s(16, 4)] == pytest.approx(3 * [0.8])


def test_of_an_engine_that_nobody_timed_nothing_is_known_until_a_batch_is_back() -> None:
    time = Time()
    pace = pace_after(time, times=(0.0, 0.0, 0.0, 0.0))
    assert (pace.soonest_s(8, 2), pace.likely_s(8, 2), pace.latest_s(8, 2)) == (0.0, 0.0, math.inf)
    assert pace.batch_s == 0.0
    time.now += 2.0
    pace.count(4)
    assert pace.soonest_s(8, 2) == pace.likely_s(8, 2) == pace.latest_s(8, 2) == 4.0
    assert pace.batch_s == 2.0


def test_stretches_are_rows_of_batches_with_enough_work() -> None:
    stretches = [(1.0, 1.0), (4.0, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, 1.0), (1.0, 1.0)]
    assert slowness_range(stretches, work_s=1.0) == (1.0, 4.0)
    assert slowness_range(stretches, work_s=2.0) == (1.0, 2.5)
    assert slowness_range(stretches, work_s=3.0) == (1.0, 7 / 3)  # the last two are a stretch for any wait
    assert slowness_range(stretches, work_s=99.0) == (1.0, 10 / 6)
    assert slowness_range([(3.0, 2.0)], work_s=99.0) == (1.5, 1.5)
    assert slowness_range([], work_s=1.0) == (0.0, math.inf)


def test_instances_that_have_little_to_do_are_as_quick_together_as_they_were_timed() -> None:
    time = Time()
    pace = pace_after(time, parallel=2)
    for _ in range(STRETCHES_MAX):
        time.now += 5.0
        pace.start()
        time.now += 0.4
        pace.count(4)
    pace.start()
    assert pace.soonest_s(40, 10) == pytest.approx(2.0), "ten batches, two at a time"
