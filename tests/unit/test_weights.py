"""Shares of traffic."""

import pytest

from nomadserve.errors import WrongInput
from nomadserve.weights import Weights, parse_weights


@pytest.mark.parametrize(
    ("texts", "by_version"),
    [
        (["v1=90", "v2=10"], {"v1": 90, "v2": 10}),
        (["v1=100"], {"v1": 100}),
        (["v1=0", "v2=100"], {"v1": 0, "v2": 100}),
        (["v1=99.5", "v2=0.5"], {"v1": 99.5, "v2": 0.5}),
        (["v1=33.33", "v2=33.33", "v3=33.34"], {"v1": 33.33, "v2": 33.33, "v3": 33.34}),
        (["v2=10.0", "v1=90.00"], {"v2": 10, "v1": 90}),
    ],
)
def test_shares_that_add_up_are_taken(texts: list[str], by_version: dict[str, float]) -> None:
    weights = parse_weights(texts)
    assert dict(weights.by_version) == by_version
    assert list(weights.by_version) == list(by_version)


@pytest.mark.parametrize(
    ("texts", "message", "hint"),
    [
        (
            ["v1=90", "v2=20"],
            "weights add up to 110, not 100",
            "give every version its share: `v1=90 v2=10`",
        ),
        (
            ["v1=33.33", "v2=66.66"],
            "weights add up to 99.99, not 100",
            "give every version its share: `v1=33.33 v2=66.67`",
        ),
        (["v1=90", "v2=20", "v3=1"], "weights add up to 111, not 100", "give every version its share: `v1=90 v2=10`"),
        (["v1=50", "v1=50"], "version `v1` is given twice", "give every version its share: `v1=90 v2=10`"),
        (["v1"], "`v1` is not a version and its share", "give every version its share: `v1=90 v2=10`"),
        (["=100"], "`=100` is not a version and its share", "give every version its share: `v1=90 v2=10`"),
        (["v1="], "`v1=` is not a version and its share", "give every version its share: `v1=90 v2=10`"),
        (["v1=90%"], "the share of `v1` is not a number: `90%`", "give every version its share: `v1=90 v2=10`"),
        (["v1=nan"], "the share of `v1` is not a number: `NaN`", "give every version its share: `v1=90 v2=10`"),
        (["v1=-10"], "the share of `v1` is negative: `-10`", "shares go from 0 to 100 percent"),
        (["v1=1e400"], "the share of `v1` is more than 100: `1E+400`", "shares go from 0 to 100 percent"),
        (
            ["v1=99.999", "v2=0.001"],
            "the share of `v1` is finer than a hundredth of a percent: `99.999`",
            "Consul keeps two decimals: `v1=100`",
        ),
        ([], "no weights given", "give every version its share: `v1=90 v2=10`"),
    ],
)
def test_other_shares_are_refused_with_the_way_out(texts: list[str], message: str, hint: str) -> None:
    with pytest.raises(WrongInput) as caught:
        parse_weights(texts)
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert caught.value.exit_code == 2


def test_no_weights_can_be_built_that_do_not_add_up() -> None:
    with pytest.raises(WrongInput, match="weights add up to 99, not 100"):
        Weights({"v1": 99})
    with pytest.raises(WrongInput, match="weights add up to 0, not 100"):
        Weights({})


def test_weights_cannot_be_changed() -> None:
    source = {"v1": 100}
    weights = Weights(source)
    source["v1"] = 5
    assert weights.by_version == {"v1": 100}
    with pytest.raises(TypeError):
        weights.by_version["v1"] = 5  # type: ignore[index]


def test_weights_read_as_they_are_typed() -> None:
    assert str(parse_weights(["v1=99.50", "v2=0.5"])) == "v1=99.5 v2=0.5"
    assert str(parse_weights(str(parse_weights(["v1=90", "v2=10"])).split())) == "v1=90 v2=10"


def test_many_fine_shares_add_up_without_rounding_errors() -> None:
    assert sum(parse_weights([f"v{i}=0.1" for i in range(1000)]).by_version.values()) == pytest.approx(100)
