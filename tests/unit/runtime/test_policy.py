import math

import pytest

from nomadserve_runtime import policy


def wait(*, rows: int = 3, is_last: bool = True, handed: int = 0, out: int | None = None, delay: float = 0.0) -> float:
    return policy.seconds_until_launch(
        rows=rows,
        capacity=4,
        is_last=is_last,
        handed=handed,
        out=handed if out is None else out,
        oldest_at=100.0,
        now=100.5,
        delay_s_max=delay,
    )


def test_an_idle_engine_gets_what_is_there_at_once() -> None:
    assert wait(rows=1) == 0.0


def test_an_idle_engine_waits_for_more_rows_no_longer_than_told() -> None:
    assert wait(delay=2.0) == 1.5
    assert wait(delay=0.25) == 0.0


def test_a_full_slot_does_not_wait() -> None:
    assert wait(rows=4, delay=2.0) == 0.0


def test_behind_a_running_batch_a_slot_keeps_filling() -> None:
    assert wait(rows=3, handed=1) == math.inf


def test_a_full_slot_is_launched_ahead_of_need() -> None:
    assert wait(rows=4, handed=1) == 0.0


def test_a_slot_that_the_next_request_did_not_fit_into_is_launched_ahead() -> None:
    assert wait(rows=3, is_last=False, handed=1) == 0.0


def test_only_one_batch_is_launched_ahead() -> None:
    assert wait(rows=4, is_last=False, handed=2) == math.inf


def test_launches_stop_while_too_many_answers_are_unread() -> None:
    assert wait(rows=4, handed=0, out=policy.OUT_MAX) == math.inf


@pytest.mark.parametrize(
    ("rows_max", "capacity", "slots"),
    [(256, 32, 15), (1, 32, 1), (4, 32, 1), (32, 32, 1), (33, 32, 3), (64, 32, 3), (256, 1, 256), (3, 2, 3)],
)
def test_slots_follow_from_the_limit(rows_max: int, capacity: int, slots: int) -> None:
    assert policy.slots_needed(rows_max=rows_max, capacity=capacity) == slots + policy.OUT_MAX


@pytest.mark.parametrize(("rows", "rate", "seconds"), [(0, 10, 0), (100, 0, 0), (100, 50, 2)])
def test_backlog_is_rows_over_the_rate_and_nothing_where_none_is_measured(
    rows: int, rate: float, seconds: float
) -> None:
    assert policy.backlog_seconds(rows=rows, rows_per_second=rate) == seconds


@pytest.mark.parametrize(("rows", "rate", "seconds"), [(100, 0, 1), (100, 50, 2), (1, 1000, 0.001), (10_000, 1, 60)])
def test_a_refused_client_is_told_when_the_present_backlog_is_done(rows: int, rate: float, seconds: float) -> None:
    assert policy.retry_after_seconds(rows=rows, rows_per_second=rate) == seconds
