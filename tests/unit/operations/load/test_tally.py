import pytest

from nomadserve.operations.load.tally import PERCENTILES, Tally, in_ms, percentile


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (90, 90), (99, 99), (99.9, 100), (100, 100), (0.1, 1)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(percent: float, expected: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], percent) == expected


def test_one_value_is_every_percentile() -> None:
    assert in_ms([0.25], PERCENTILES) == {"p50": 250, "p90": 250, "p99": 250, "p99.9": 250, "max": 250}


def test_no_values_have_no_percentiles() -> None:
    assert in_ms([], PERCENTILES) == {}


def test_values_need_not_be_sorted() -> None:
    assert in_ms([0.003, 0.001, 0.002], {"p50": 50.0}) == {"p50": 2.0, "max": 3.0}


def test_only_good_answers_have_a_latency() -> None:
    tally = Tally()
    for status in (200, 503, 500, 200, 400):
        tally.answered(status, 0.01)
    assert (tally.ok, tally.refused) == (2, 1)
    assert tally.failures == {"status 500": 1, "status 400": 1}
