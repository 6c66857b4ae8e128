import pytest

from nomadserve.operations.bench.knee import Limits, Verdict
from nomadserve.operations.bench.proposal import doubts_about, propose
from tests.unit.operations.bench.outcomes import step

LIMITS = Limits(p99_s=0.5, error_share=0.01)


def test_the_target_is_three_quarters_of_the_knee_in_two_digits() -> None:
    proposal = propose([step(536), step(600, Verdict.slow)], LIMITS, rows=1, batch_rows_max=32)
    assert proposal is not None
    assert proposal.requests_per_second == 400


@pytest.mark.parametrize(("knee", "target"), [(1.0, 0.75), (0.4, 0.3), (99, 74), (13_400, 10_000)])
def test_targets_of_any_size_are_rounded_down(knee: float, target: float) -> None:
    proposal = propose([step(knee)], LIMITS, rows=1, batch_rows_max=1)
    assert proposal is not None
    assert proposal.requests_per_second == pytest.approx(target)


def test_the_queue_holds_what_is_answered_within_the_limit() -> None:
    steps = [step(500, batch_rows=20), step(800, Verdict.errors, throughput=600, batch_rows=30)]
    proposal = propose(steps, LIMITS, rows=1, batch_rows_max=32)
    assert proposal is not None
    assert proposal.queue_max == 600 * 0.5 - 2 * 30  # two batches are under way ahead of it
    assert proposal.wait_s_max == 0.5


def test_the_queue_counts_rows_not_requests() -> None:
    proposal = propose([step(100, batch_rows=10)], LIMITS, rows=4, batch_rows_max=32)
    assert proposal is not None
    assert proposal.queue_max == 100 * 4 * 0.5 - 20


def test_a_queue_holds_one_batch_at_least() -> None:
    proposal = propose([step(10)], LIMITS, rows=1, batch_rows_max=32)
    assert proposal is not None
    assert proposal.queue_max == 32
    assert proposal.wait_s_max > LIMITS.p99_s


def test_nothing_is_proposed_where_no_rate_passed() -> None:
    assert propose([step(10, Verdict.slow)], LIMITS, rows=1, batch_rows_max=32) is None


def test_threads_are_proposed_only_where_they_were_compared() -> None:
    without = propose([step(100)], LIMITS, rows=1, batch_rows_max=8)
    with_threads = propose([step(100)], LIMITS, rows=1, batch_rows_max=8, threads=2)
    assert without is not None
    assert with_threads is not None
    assert "threads" not in without.hcl
    assert "threads = 2" in with_threads.hcl


def test_a_late_generator_is_a_doubt() -> None:
    assert "at least the knee" in doubts_about([step(100), step(200, Verdict.generator)], rate_max=1e5)[0]


def test_a_search_that_ended_while_the_generator_was_late_is_a_doubt() -> None:
    steps = [step(100), step(200, Verdict.errors, is_late=True), step(200, Verdict.errors, is_late=True)]
    assert "at 200/s, where the search ended" in doubts_about(steps, rate_max=1e5)[0]
    steps.append(step(150, Verdict.errors))
    assert doubts_about(steps, rate_max=1e5) == []


def test_a_knee_at_the_highest_rate_is_a_doubt() -> None:
    assert "lies above" in doubts_about([step(100)], rate_max=100)[0]


def test_a_generator_that_fills_its_core_is_a_doubt() -> None:
    assert "95% of its core" in doubts_about([step(100, cpu_share=0.95)], rate_max=1e5)[0]


def test_a_higher_rate_that_was_answered_better_is_a_doubt() -> None:
    steps = [step(100), step(400, Verdict.errors, throughput=300), step(200, Verdict.errors, throughput=150)]
    assert "fewer requests were answered of 200/s than of 400/s" in doubts_about(steps, rate_max=1e5)[0]


def test_a_replica_that_answers_less_the_more_it_is_asked_is_no_contradiction() -> None:
    steps = [step(100), step(400, Verdict.errors, throughput=120), step(200, Verdict.errors, throughput=150)]
    assert doubts_about(steps, rate_max=1e5) == []


def test_a_clean_measurement_leaves_no_doubt() -> None:
    assert doubts_about([step(100), step(200, Verdict.slow)], rate_max=1e5) == []
