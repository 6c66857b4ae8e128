"""Simulations of a version that may sleep."""

import pytest

from nomadserve.operations.simulate import simulate
from nomadserve.operations.simulate.result import Assumptions, Result
from nomadserve.spec import Seconds
from tests.unit.operations.simulate.policies import service, trace

# Nobody asks, then ten requests a second for a minute, then nobody again.
VISIT = trace((0, 0), (100, 10), (160, 0), seconds=400)


def visit(*, startup_s: float = 5, hold: int = 30, idle: int = 60) -> Result:
    sleeper = service(min=0, max=4, idle=Seconds(idle), hold=Seconds(hold), cooldown=Seconds(20))
    return simulate(sleeper, VISIT, Assumptions(capacity=20, startup_s=startup_s))


def test_the_first_request_wakes_it_and_is_kept_until_it_is_ready() -> None:
    result = visit()
    first = result.changes[0]
    assert (first.before, first.after, first.why) == (0, 1, "awake")
    assert 100 <= first.at_s <= 103
    assert result.refused == 0
    assert result.wait_p99_s == pytest.approx(first.at_s - 100 + 5, abs=1)


def test_it_sleeps_again_after_idle_and_not_before() -> None:
    last = visit(idle=60).changes[-1]
    assert (last.before, last.after) == (1, 0)
    assert 160 + 60 <= last.at_s <= 160 + 65
    assert visit(idle=300).changes[-1].after == 1


def test_what_takes_longer_than_hold_is_refused_at_once() -> None:
    result = visit(startup_s=20, hold=10)
    assert result.refused == pytest.approx((result.changes[0].at_s + 20 - 100) * 10, abs=20)


def test_no_replica_hours_are_spent_while_nobody_asks() -> None:
    asleep = visit()
    assert asleep.replica_hours < 0.5 * 400 / 3600
    assert visit(idle=300).replica_hours > asleep.replica_hours
