from typing import Any

import pytest

from nomadserve.operations import groups


def job(**counts: int) -> dict[str, Any]:
    return {"TaskGroups": [{"Name": name, "Count": count} for name, count in counts.items()]}


def test_a_versions_replicas_are_those_of_both_groups() -> None:
    found = job(serve=3, on_demand=2)
    assert groups.counts(found) == {"serve": 3, "on_demand": 2}
    assert (groups.total(found), groups.fixed(found)) == (5, 2)


@pytest.mark.parametrize(("total", "serve"), [(5, 3), (2, 0), (1, 0)])
def test_only_the_scaled_group_makes_up_the_total(total: int, serve: int) -> None:
    found = job(serve=9, on_demand=2)
    groups.set_total(found, total)
    assert groups.counts(found) == {"serve": serve, "on_demand": 2}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"serve": 3}, {"serve": 3}),
        ({"serve": 3}, {"serve": 1}),
        ({"serve": 1}, {"serve": 2, "on_demand": 1}),
        ({"serve": 2, "on_demand": 1}, {"serve": 2}),
    ],
)
def test_no_replica_moves_where_groups_only_grow_or_only_shrink(before: dict[str, int], after: dict[str, int]) -> None:
    assert groups.bridge(job(**before), job(**after)) is None


@pytest.mark.parametrize(
    ("before", "after", "between"),
    [
        ({"serve": 1}, {"serve": 0, "on_demand": 1}, {"serve": 1, "on_demand": 1}),
        ({"serve": 0, "on_demand": 1}, {"serve": 1}, {"serve": 1, "on_demand": 1}),
        ({"serve": 3, "on_demand": 1}, {"serve": 2, "on_demand": 2}, {"serve": 3, "on_demand": 2}),
    ],
)
def test_replicas_that_move_to_another_group_start_before_they_stop(
    before: dict[str, int], after: dict[str, int], between: dict[str, int]
) -> None:
    found = groups.bridge(job(**before), job(**after))
    assert found is not None
    assert groups.counts(found) == between


def test_the_maximum_makes_way_for_those_that_are_still_there() -> None:
    after = job(serve=2, on_demand=2)
    after["TaskGroups"][0]["Scaling"] = {"Min": 1, "Max": 2}
    found = groups.bridge(job(serve=3, on_demand=1), after)
    assert found is not None
    assert found["TaskGroups"][0]["Scaling"] == {"Min": 1, "Max": 3}
    assert after["TaskGroups"][0]["Scaling"]["Max"] == 2
