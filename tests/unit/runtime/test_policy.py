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
    assert wait(rows=4, handed=0, out=policy.out_max(1)) == math.inf


@pytest.mark.parametrize(
    ("rows_max", "capacity", "slots"),
    [(256, 32, 15), (1, 32, 1), (4, 32, 1), (32, 32, 1), (33, 32, 3), (64, 32, 3), (256, 1, 256), (3, 2, 3)],
)
def test_slots_follow_from_the_limit(rows_max: int, capacity: int, slots: int) -> None:
    assert policy.slots_needed(rows_max=rows_max, capacity=capacity) == slots + policy.out_max(1)


@pytest.mark.parametrize(("backlog_s", "seconds"), [(0.0, 1.0), (2.0, 2.0), (0.001, 0.001), (10_000.0, 60.0)])
def test_a_refused_client_is_told_when_the_present_backlog_is_done(backlog_s: float, seconds: float) -> None:
    assert policy.retry_after_seconds(backlog_s) == seconds


def test_a_batch_runs_on_the_event_loop_where_a_thread_would_cost_more_than_it_frees() -> None:
    assert policy.runs_inline(batch_s=0.00001, hop_s=0.00002, cores=8)
    assert not policy.runs_inline(batch_s=0.00003, hop_s=0.00002, cores=8)
    assert not policy.runs_inline(batch_s=0.01, hop_s=0.1, cores=8), (
        "no thread is so late that requests may stand still"
    )
    assert policy.runs_inline(batch_s=0.0005, hop_s=0.00002, cores=1)
    assert not policy.runs_inline(batch_s=0.01, hop_s=0.00002, cores=1)


@pytest.mark.parametrize(
    ("seconds", "rows"),
    [
        ([(1, 1.0), (2, 1.0), (4, 1.0)], 4),  # a GPU with time to spare
        ([(1, 1.0), (2, 2.0), (4, 4.1)], 1),  # a second row doubles the time
        ([(1, 1.0), (2, 1.5), (4, 3.1)], 2),
        ([(1, 1.0), (2, 1.99), (4, 3.97)], 1),  # no difference that one can measure
        ([(1, 0.0001), (2, 0.0002), (4, 0.0004)], 4),  # less than what comes between two batches
        ([(1, 0.0)], 1),
    ],
)
def test_a_batch_is_as_large_as_pays(seconds: list[tuple[int, float]], rows: int) -> None:
    assert policy.worthwhile_rows(seconds, overhead_s=0.001) == rows


def test_a_batch_waits_a_turn_only_while_others_are_about_to_join_it() -> None:
    assert policy.is_worth_a_turn(rows=1, capacity=4, reading=1, turns=0)
    assert not policy.is_worth_a_turn(rows=1, capacity=4, reading=0, turns=0)
    assert not policy.is_worth_a_turn(rows=4, capacity=4, reading=1, turns=0)
    assert not policy.is_worth_a_turn(rows=1, capacity=4, reading=1, turns=policy.TURNS_MAX)


def test_a_priority_is_worth_a_bounded_time_so_nobody_starves() -> None:
    def due(at: float, priority: int) -> float:
        return policy.due_at(admitted_at=at, priority=priority)

    assert due(5.0, 0) == due(5.0, policy.PRIORITY_DEFAULT) == 5.0
    assert due(5.05, 1) < due(5.0, 0) < due(4.95, 3)
    # One that has waited long enough stands before every newcomer.
    assert due(5.0, 2**31 - 1) < due(5.0 + policy.PRIORITY_MAX * policy.PRIORITY_STEP_S, 1)


def test_what_must_be_back_before_a_launch_is_all_ahead_but_the_one_that_is_enqueued_ahead() -> None:
    def back(running_rows: int, handed: int, *ahead: int, parallel: int = 1) -> tuple[int, int]:
        return policy.back_before_launch(running_rows=running_rows, handed=handed, ahead=ahead, parallel=parallel)

    assert [back(0, 0), back(4, 1), back(0, 0, 3)] == [(0, 0)] * 3
    assert [back(8, 2), back(1, 1, 4), back(0, 0, 4, 2)] == [(4, 1), (1, 1), (4, 1)]
    assert back(6, 2, 4, 3, 1) == (6 + 4 + 3, 4)
    assert [back(6, 3, parallel=2), back(8, 4, parallel=2), back(8, 4, 3, parallel=2)] == [(0, 0), (2, 1), (4, 2)]


def test_long_batches_are_forgotten_sooner_each_but_never_at_once() -> None:
    remains = [policy.rate_memory(batch_s) for batch_s in (0.001, 0.1, 0.5, 60.0)]
    assert remains == [0.999, 0.9, policy.RATE_MEMORY_MIN, policy.RATE_MEMORY_MIN]


def test_the_adapted_wait_grows_by_steps_and_halves_when_late() -> None:
    def after(delay_s: float, latency_s: float, rows: int = 2) -> float:
        return policy.adapted_delay(delay_s, latency_s=latency_s, rows=rows, target_s=1.0, batch_s=0.4)

    assert after(0.1, 0.5) == 0.1 + policy.PACE_STEP
    assert after(0.1, 1.5) == 0.05
    assert after(0.1, 0.5, rows=1) == 0.05
    assert after(0.0001, 1.5) == 0.0
    assert after(0.7, 0.5) == 0.6  # never so long that the batch itself no longer fits
