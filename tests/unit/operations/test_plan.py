from typing import Any

import pytest

from nomadserve.operations.plan import live_count
from nomadserve.spec import InFlight, Model, Scaling, Service

MODEL = Model(name="digits", source="https://models.example/digits.onnx")


def running(count: int) -> dict[str, Any]:
    return {"TaskGroups": [{"Count": count}]}


def service(**keys: Any) -> Service:
    return Service(name="digits", models=(MODEL,), **keys)


@pytest.mark.parametrize("live", [0, 1, 3])
def test_the_count_that_runs_stays_also_where_it_is_none(live: int) -> None:
    assert live_count(service(), running(live)) == live


def test_a_new_job_has_no_live_count() -> None:
    assert live_count(service(), None) is None


def test_replicas_in_the_file_fix_the_count() -> None:
    assert live_count(service(replicas=2), running(5)) is None


@pytest.mark.parametrize(("live", "kept"), [(1, 2), (3, 3), (9, 4)])
def test_bounds_of_the_file_hold_for_the_live_count(live: int, kept: int) -> None:
    scaling = Scaling(min=2, max=4, targets=(InFlight(value=4),))
    assert live_count(service(scaling=scaling), running(live)) == kept


def test_a_live_count_is_that_of_all_groups() -> None:
    both = {"TaskGroups": [{"Name": "serve", "Count": 3}, {"Name": "on-demand", "Count": 1}]}
    assert live_count(service(), both) == 4
