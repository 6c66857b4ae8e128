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
