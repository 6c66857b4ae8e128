"""Whole simulations: what a policy is bound to do."""

import pytest

from nomadserve.errors import WrongInput
from nomadserve.operations.simulate import simulate
from nomadserve.operations.simulate.core import rates_of
from nomadserve.operations.simulate.result import Assumptions
from nomadserve.spec import BacklogSeconds, CpuLoad, Gpu, InFlight, RequestsPerSecond, Schedule, Seconds, Service
from tests.unit.operations.simulate.policies import ASSUMPTIONS, TARGET, scaling, service, trace

STEP_UP = trace((0, 5), (60, 55), seconds=300)
STEP_DOWN = trace((0, 55), (60, 5), seconds=300)


def counts(result: object) -> list[int]:
    return [change.after for change in result.changes]  # type: ignore[attr-defined]


def test_a_steady_load_changes_nothing() -> None:
    result = simulate(service(), trace((0, 25), (100, 25), seconds=600), ASSUMPTIONS)
    assert result.changes == []
    assert (result.replicas_mean, result.refused, result.wait_p99_s) == (3, 0, 0)


def test_a_step_up_ends_at_the_count_that_the_target_asks_for() -> None:
    result = simulate(service(), STEP_UP, ASSUMPTIONS)
    assert counts(result)[-1] == 6
    assert counts(result) == sorted(counts(result))
    assert result.changes[0].at_s > 60
    assert result.changes[0].why == "requests_per_second"
    assert result.moments[-1].ready == 6


def test_requests_are_refused_until_the_new_replicas_are_ready() -> None:
    fast = simulate(service(), STEP_UP, Assumptions(capacity=12, startup_s=2))
    slow = simulate(service(), STEP_UP, Assumptions(capacity=12, startup_s=40))
    assert 0 < fast.refused < slow.refused
    assert fast.refused_longest_s < slow.refused_longest_s
    assert slow.requests == pytest.approx(60 * 5 + 240 * 55)


def test_the_count_falls_only_after_the_cooldown() -> None:
    short = simulate(service(cooldown=Seconds(30)), STEP_DOWN, ASSUMPTIONS)
    long = simulate(service(cooldown=Seconds(120)), STEP_DOWN, ASSUMPTIONS)
    assert counts(short)[-1] == counts(long)[-1] == 1
    assert short.changes[0].at_s >= 60 + 30
    assert long.changes[0].at_s >= 60 + 120
    assert short.replica_hours < long.replica_hours


def test_a_dip_shorter_than_the_cooldown_takes_nothing_away() -> None:
    result = simulate(service(), trace((0, 55), (60, 5), (90, 55), seconds=300), ASSUMPTIONS)
    assert result.changes == []


def test_no_count_leaves_the_bounds() -> None:
    result = simulate(service(min=2, max=4), trace((0, 0), (60, 500), (200, 0), seconds=500), ASSUMPTIONS)
    assert max(counts(result)) == 4
    assert counts(result)[-1] == 2


def test_a_share_on_top_makes_room() -> None:
    result = simulate(service(overprovision=0.5), STEP_UP, ASSUMPTIONS)
    assert counts(result)[-1] == 9  # 55 / 10 × 1.5


def test_steps_up_and_down_can_be_limited() -> None:
    result = simulate(service(max_scale_up=1), STEP_UP, ASSUMPTIONS)
    assert all(change.after - change.before == 1 for change in result.changes[:5])
    result = simulate(service(max_scale_down=1), STEP_DOWN, ASSUMPTIONS)
    assert all(change.before - change.after == 1 for change in result.changes)


def test_a_change_waits_for_the_deployment_of_the_last_one() -> None:
    result = simulate(service(max_scale_up=1, cooldown=Seconds(20)), STEP_UP, Assumptions(capacity=12, startup_s=31))
    first, second = result.changes[:2]
    assert second.at_s - first.at_s >= 31 + service().update.min_healthy_time


def test_a_schedule_raises_the_minimum_and_lets_it_go() -> None:
    office = Schedule(name="office", start="10 0 * * *", end="20 0 * * *", min=4)
    quiet = trace((0, 1), (60, 1), seconds=2400)
    result = simulate(service(schedules=(office,)), quiet, ASSUMPTIONS)
    assert counts(result)[0] == 4
    assert result.changes[0].why == "schedule office"
    assert result.changes[0].at_s == pytest.approx(600, abs=5)
    assert result.changes[-1].at_s >= 1200
    assert counts(result)[-1] == 1


def test_a_schedule_alone_falls_back_to_the_minimum() -> None:
    office = Schedule(name="office", start="10 0 * * *", end="20 0 * * *", min=4)
    result = simulate(service(targets=(), schedules=(office,)), trace((0, 1), (60, 1), seconds=2400), ASSUMPTIONS)
    assert counts(result) == [4, 1]


@pytest.mark.parametrize(
    "target",
    [InFlight(value=2, window=Seconds(20)), BacklogSeconds(value=0.5, window=Seconds(20))],
    ids=["in_flight", "backlog_seconds"],
)
def test_what_waits_can_be_the_target(target: InFlight | BacklogSeconds) -> None:
    result = simulate(service(targets=(target,)), STEP_UP, ASSUMPTIONS)
    assert max(counts(result)) > 3
    assert result.changes[0].why == target.kind


def test_of_two_targets_the_larger_wish_wins() -> None:
    both = (TARGET, RequestsPerSecond(value=5, window=Seconds(20)))
    wide = service(targets=both, max=20)
    assert simulate(wide, trace((0, 55), (60, 55), seconds=600), ASSUMPTIONS).moments[-1].count == 11


def test_the_first_count_is_what_the_first_rate_asks_for() -> None:
    assert simulate(service(), STEP_DOWN, ASSUMPTIONS).moments[0].count == 6
    three = Assumptions(capacity=12, startup_s=8, replicas=3)
    assert simulate(service(), STEP_DOWN, three).moments[0].count == 3


def test_gpu_hours_count_every_gpu_of_every_replica() -> None:
    result = simulate(
        Service(name="big", models=service().models, gpu=Gpu(count=2), scaling=scaling()),
        trace((0, 25), (1800, 25), seconds=3600),
        ASSUMPTIONS,
    )
    assert (result.replica_hours, result.gpu_hours, result.hours_at_max) == (3, 6, 10)


def test_a_long_trace_is_shown_in_bounded_detail() -> None:
    result = simulate(service(), trace((0, 25), (1800, 25), seconds=86_400), ASSUMPTIONS)
    assert 600 <= len(result.moments) <= 720
    assert sum(moment.offered for moment in result.moments) / len(result.moments) == pytest.approx(25)


def test_targets_that_do_not_follow_from_traffic_are_named() -> None:
    cpu = CpuLoad(value=70, window=Seconds(30))
    assert "`cpu`" in simulate(service(targets=(TARGET, cpu)), STEP_UP, ASSUMPTIONS).notes[0]
    with pytest.raises(WrongInput, match="`cpu`, `query` only"):
        simulate(service(targets=(cpu,), query="vector(1)"), STEP_UP, ASSUMPTIONS)


def test_a_file_without_scaling_has_nothing_to_simulate() -> None:
    with pytest.raises(WrongInput, match="no `scaling` block"):
        simulate(Service(name="digits", models=service().models), STEP_UP, ASSUMPTIONS)


def test_a_rate_holds_until_the_next_one() -> None:
    assert rates_of(trace((0, 1), (2.5, 7), seconds=5), 1.0) == [1, 1, 1, 7, 7]
