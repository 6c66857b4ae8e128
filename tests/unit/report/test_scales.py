import pytest

from nomadserve.report.scales import clock, linear, logarithmic, plain, round_up


@pytest.mark.parametrize(("value", "expected"), [(1, 1), (1.1, 2), (2.1, 2.5), (2.6, 5), (7, 10), (0.03, 0.05)])
def test_steps_are_round_numbers(value: float, expected: float) -> None:
    assert round_up(value) == pytest.approx(expected)


@pytest.mark.parametrize("highest", [0.004, 1, 3, 99, 100, 101, 54_321])
def test_a_linear_axis_holds_every_value_and_starts_at_zero(highest: float) -> None:
    scale = linear([0, highest / 2, highest])
    assert scale.low == 0 == scale.ticks[0]
    assert scale.high == scale.ticks[-1] >= highest
    assert 3 <= len(scale.ticks) <= 7


def test_an_axis_without_values_is_still_an_axis() -> None:
    assert linear([]).share(0) == 0
    assert logarithmic([]).share(1) == 0


def test_a_logarithmic_axis_gives_every_factor_the_same_room() -> None:
    scale = logarithmic([2, 900])
    assert (scale.low, scale.high) == (1, 1000)
    assert scale.share(10) == pytest.approx(1 / 3)
    assert scale.share(100) == pytest.approx(2 / 3)


def test_a_power_of_ten_at_the_edge_has_room_above() -> None:
    assert logarithmic([10, 100]).high > 100


def test_values_beyond_an_axis_are_put_on_its_edge() -> None:
    assert linear([10]).share(99) == 1
    assert logarithmic([1, 10]).share(0) == 0


@pytest.mark.parametrize(("seconds", "label"), [(90, "60 s"), (7200, "30 min"), (86400, "4 h")], ids=["s", "min", "h"])
def test_time_is_labelled_in_the_unit_that_fits(seconds: float, label: str) -> None:
    scale = clock([0, seconds])
    assert label in [scale.label(tick) for tick in scale.ticks]
    assert len(scale.ticks) <= 8


@pytest.mark.parametrize(("value", "text"), [(0.25, "0.25"), (1, "1"), (999, "999"), (12_345, "12,345")])
def test_numbers_are_written_for_people(value: float, text: str) -> None:
    assert plain(value) == text
