import pytest

from nomadserve.operations.bench.knee import Limits, Step, Verdict, bracket, knee_of, next_rate
from nomadserve.operations.load import Outcome
from tests.unit.operations.bench.outcomes import outcome, step

LIMITS = Limits(p99_s=0.1, error_share=0.01)


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (outcome(100, p99_ms=99), Verdict.good),
        (outcome(100, p99_ms=101), Verdict.slow),
        (outcome(100, refused=10), Verdict.good),
        (outcome(100, refused=11), Verdict.errors),
        (outcome(100, failures={"timeout": 11}), Verdict.errors),
        (outcome(100, p99_ms=None, failures={"timeout": 1000}), Verdict.errors),
        # Its own lateness is what brings it over the limit, or is not.
        (outcome(100, p99_ms=120, lag_ms=30), Verdict.generator),
        (outcome(100, p99_ms=400, lag_ms=30), Verdict.slow),
        (outcome(100, p99_ms=105, lag_ms=9), Verdict.slow),
        (outcome(100, p99_ms=90, lag_ms=30), Verdict.good),
    ],
)
def test_a_step_is_judged_by_the_limits(measured: Outcome, verdict: Verdict) -> None:
    assert LIMITS.judge(measured) is verdict


def test_a_tight_limit_allows_for_the_grid_of_the_timers() -> None:
    tight = Limits(p99_s=0.002, error_share=0.01)
    assert tight.judge(outcome(100, p99_ms=3, lag_ms=2)) is Verdict.slow


def search(capacity: float, *, start: float = 10, precision: float = 0.05, rate_max: float = 1e5) -> list[Step]:
    """The steps that a replica of that capacity leads to; above it, it falls behind."""
    steps: list[Step] = []
    while rate := next_rate(steps, start=start, precision=precision, rate_max=rate_max):
        is_good = rate <= capacity
        steps.append(step(rate, Verdict.good if is_good else Verdict.slow, throughput=min(rate, 0.9 * capacity)))
    return steps


@pytest.mark.parametrize("capacity", [0.3, 1, 9.99, 10, 37, 536, 4321, 99_000])
def test_the_knee_is_found_within_the_precision(capacity: float) -> None:
    steps = search(capacity)
    knee = knee_of(steps)
    assert knee is not None
    assert capacity / 1.07 <= knee.rate <= capacity  # 5 %, and the rounding to three digits
    assert len(steps) < 25


def test_the_rate_doubles_until_a_step_fails() -> None:
    assert [each.rate for each in search(70)][:4] == [10, 20, 40, 80]


def test_a_coarse_search_ends_early() -> None:
    assert len(search(536, precision=0.5)) < len(search(536))


def test_the_search_ends_at_the_highest_rate_that_is_allowed() -> None:
    steps = search(1e9, rate_max=500)
    assert [each.rate for each in steps][-1] == 500
    knee = knee_of(steps)
    assert knee is not None
    assert knee.rate == 500


def test_a_replica_that_takes_nothing_ends_the_search_without_a_knee() -> None:
    steps = search(0)
    assert knee_of(steps) is None
    assert steps[-1].rate >= 0.1


def test_a_step_that_kept_up_and_was_slow_is_tried_once_more() -> None:
    first = [step(100), step(200, Verdict.slow, throughput=199)]
    assert next_rate(first, start=100, precision=0.05, rate_max=1e5) == 200
    again = [*first, step(200, Verdict.slow, throughput=199)]
    assert next_rate(again, start=100, precision=0.05, rate_max=1e5) == pytest.approx(141)


def test_of_two_tries_the_second_counts() -> None:
    steps = [step(100), step(200, Verdict.slow, throughput=199), step(200)]
    assert bracket(steps) == (200, None)
    knee = knee_of(steps)
    assert knee is steps[2]


@pytest.mark.parametrize("verdict", [Verdict.slow, Verdict.errors])
def test_a_step_that_fell_behind_is_not_tried_again(verdict: Verdict) -> None:
    steps = [step(100), step(200, verdict, throughput=150)]
    assert next_rate(steps, start=100, precision=0.05, rate_max=1e5) == pytest.approx(141)


@pytest.mark.parametrize("verdict", [Verdict.slow, Verdict.errors])
def test_what_failed_while_the_generator_was_late_is_tried_once_more(verdict: Verdict) -> None:
    steps = [step(100), step(200, verdict, throughput=150, is_late=True)]
    assert next_rate(steps, start=100, precision=0.05, rate_max=1e5) == 200
    again = [*steps, step(200, verdict, throughput=150, is_late=True)]
    assert next_rate(again, start=100, precision=0.05, rate_max=1e5) == pytest.approx(141)


def test_a_good_step_is_good_however_late_the_generator_was() -> None:
    assert next_rate([step(100, is_late=True)], start=100, precision=0.05, rate_max=1e5) == 200


def test_a_generator_that_is_late_twice_ends_the_search() -> None:
    steps = [step(100), step(200, Verdict.generator)]
    assert next_rate(steps, start=100, precision=0.05, rate_max=1e5) == 200
    steps.append(step(200, Verdict.generator))
    assert next_rate(steps, start=100, precision=0.05, rate_max=1e5) is None
    knee = knee_of(steps)
    assert knee is steps[0]


def test_a_good_rate_above_a_bad_one_is_no_knee() -> None:
    steps = [step(100), step(200, Verdict.errors), step(150, Verdict.errors), step(120)]
    assert bracket([*steps, step(180)]) == (120, 150)
