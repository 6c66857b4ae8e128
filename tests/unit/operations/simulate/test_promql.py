import pytest

from nomadserve.operations.simulate.promql import average, rate, within

STEADY = [(float(at), 10.0 * at) for at in range(0, 101, 5)]  # 10 a second


def test_a_steady_counter_has_its_rate_in_every_window() -> None:
    for window in (10, 15, 30, 60):
        assert rate(STEADY, 97, window) == pytest.approx(10)


def test_one_sample_has_no_rate() -> None:
    assert rate(STEADY[:1], 3, 30) is None
    assert rate([], 3, 30) is None


def test_samples_of_later_are_not_seen() -> None:
    assert rate(STEADY, 50, 20) == rate(STEADY[:11], 50, 20)


def test_a_counter_that_began_at_zero_is_not_extrapolated_below() -> None:
    # Two samples, 5 s apart, 20 s into a 30 s window: half a gap is filled at the end only.
    samples = [(90.0, 0.0), (95.0, 50.0)]
    assert rate(samples, 97, 30) == pytest.approx(50 * (5 + 2) / 5 / 30)


def test_a_gap_at_an_edge_is_filled_by_half_a_distance() -> None:
    samples = [(50.0, 500.0), (55.0, 550.0), (60.0, 600.0)]
    assert rate(samples, 75, 30) == pytest.approx(100 * (10 + 5 / 1 + 2.5) / 10 / 30)


def test_a_counter_that_stands_has_a_rate_of_zero() -> None:
    assert rate([(0.0, 7.0), (5.0, 7.0)], 6, 10) == 0


def test_the_average_is_of_the_samples_in_the_window() -> None:
    assert average([(0.0, 100.0), (10.0, 2.0), (15.0, 4.0)], 17, 10) == 3
    assert average([(0.0, 100.0)], 17, 10) is None


def test_a_window_has_both_its_edges() -> None:
    assert [at for at, _ in within(STEADY, 20, 10)] == [10, 15, 20]
