from collections.abc import Callable, Mapping
from typing import Any

import pytest

from nomadserve.consul_api import Instance
from nomadserve.operations import capacity
from nomadserve.operations.capacity import Shortage
from nomadserve.operations.cluster import Cluster
from nomadserve.weights import Weights


class FakePrometheus:
    def __init__(self, wished: Mapping[str, list[float]]) -> None:
        self.wished = wished

    def values(self, query: str) -> list[float]:
        return self.wished[query]


class FakeConsul:
    def __init__(self, healthy: Mapping[str, int]) -> None:
        self.healthy = healthy

    def instances(self, service: str) -> list[Instance]:
        return [Instance("127.0.0.1", 1, True)] * self.healthy[service]


class FakeNomad:
    """Every job has one check, whose query is the job's own name; jobs in `plain` have no policy."""

    def __init__(self, plain: tuple[str, ...]) -> None:
        self.plain = plain

    def job(self, job_id: str) -> dict[str, Any]:
        body = {"source": "prometheus", "query": job_id}
        scaling = None if job_id in self.plain else {"Policy": {"check": [{"in_flight": [body]}]}}
        return {"ID": job_id, "TaskGroups": [{"Scaling": scaling}]}


Find = Callable[..., list[Shortage]]


@pytest.fixture
def find(monkeypatch: pytest.MonkeyPatch) -> Find:
    """Shortages of service `s` on a move of the weights, by what policies wish for and what is healthy."""

    def run(
        before: Mapping[str, int],
        after: Mapping[str, int],
        *,
        wished: Mapping[str, list[float]] | None,
        healthy: Mapping[str, int],
        plain: tuple[str, ...] = (),
        asleep: tuple[str, ...] = (),
    ) -> list[Shortage]:
        prometheus = None if wished is None else FakePrometheus(wished)
        monkeypatch.setattr(capacity, "prometheus_of", lambda _: prometheus)
        monkeypatch.setattr(capacity, "place_of", lambda cluster, *_: cluster)
        cluster = Cluster(FakeNomad(plain), FakeConsul(healthy))  # type: ignore[arg-type]
        return capacity.shortages(cluster, "s", Weights(dict(before)), Weights(dict(after)), asleep)

    return run


LOADED = {"s-v1": [6.0], "s-v2": [0.0]}


def test_a_version_that_gains_more_than_it_can_take_is_short(find: Find) -> None:
    found = find({"v1": 100, "v2": 0}, {"v1": 50, "v2": 50}, wished=LOADED, healthy={"s-v1": 6, "s-v2": 1})
    assert found == [Shortage("s", "v2", 50, 1, 3)]
    assert str(found[0]) == "`v2` has 1 healthy replica, and 50 % of the load of now needs about 3"


def test_a_small_share_of_it_needs_no_more_replicas(find: Find) -> None:
    assert not find({"v1": 100, "v2": 0}, {"v1": 90, "v2": 10}, wished=LOADED, healthy={"s-v1": 6, "s-v2": 1})


def test_the_load_of_all_versions_counts(find: Find) -> None:
    wished = {"s-v1": [2.0], "s-v2": [4.0]}
    [short] = find({"v1": 50, "v2": 50}, {"v1": 0, "v2": 100}, wished=wished, healthy={"s-v1": 2, "s-v2": 4})
    assert (short.version, short.needed) == ("v2", 6)


def test_a_version_that_loses_traffic_is_never_short(find: Find) -> None:
    wished = {"s-v1": [6.0], "s-v2": [1.0]}
    found = find({"v1": 80, "v2": 20}, {"v1": 20, "v2": 80}, wished=wished, healthy={"s-v1": 0, "s-v2": 9})
    assert found == []


@pytest.mark.parametrize("wished", [None, {"s-v1": []}])
def test_where_the_load_is_not_known_nothing_is_said(find: Find, wished: Mapping[str, list[float]] | None) -> None:
    assert not find({"v1": 100, "v2": 0}, {"v1": 0, "v2": 100}, wished=wished, healthy={"s-v1": 6, "s-v2": 1})


def test_a_version_with_traffic_and_without_a_policy_tells_nothing(find: Find) -> None:
    assert not find(
        {"v1": 100, "v2": 0}, {"v1": 0, "v2": 100}, wished=LOADED, healthy={"s-v1": 6, "s-v2": 1}, plain=("s-v1",)
    )


@pytest.mark.parametrize("wished", [None, {"s-v1": [0.0], "s-v2": [0.0]}], ids=["load not known", "no load"])
def test_a_version_that_is_asleep_needs_one_replica_for_any_weight(
    find: Find, wished: Mapping[str, list[float]] | None
) -> None:
    healthy = {"s-v1": 1, "s-v2": 0}
    found = find({"v1": 100, "v2": 0}, {"v1": 99, "v2": 1}, wished=wished, healthy=healthy, asleep=("v2",))
    assert found == [Shortage("s", "v2", 1, 0, 1)]


class RecordingNomad:
    """Holds one job of a version `v2`, and remembers what was registered."""

    def __init__(self, scaling: dict[str, Any] | None) -> None:
        group = {"Count": 1, "Scaling": scaling}
        self.current = {"ID": "s-v2", "JobModifyIndex": 7, "TaskGroups": [group]}
        self.registered: list[tuple[int, int | None]] = []

    def job(self, job_id: str) -> dict[str, Any]:
        assert job_id == "s-v2"
        return self.current

    def register(self, job: dict[str, Any], *, source: str, modify_index: int, preserve_counts: bool) -> str:
        assert modify_index == self.current["JobModifyIndex"]
        group = job["TaskGroups"][0]
        self.registered.append((group["Count"], group["Scaling"]["Min"] if group["Scaling"] else None))
        self.current = job
        return "evaluation"


@pytest.mark.parametrize(
    ("scaling", "registered"),
    [
        ({"Min": 1, "Max": 5}, [(4, 4), (4, 1)]),
        ({"Min": 1, "Max": 3}, [(3, 3), (3, 1)]),
        (None, [(4, None)]),
    ],
    ids=["its minimum is raised, and put back", "never above its maximum", "a fixed count is raised"],
)
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_scaling_first_holds_the_new_replicas_while_traffic_moves(
    monkeypatch: pytest.MonkeyPatch,
    scaling: dict[str, Any] | None,
    registered: list[tuple[int, int | None]],
    is_interrupted: bool,
) -> None:
    nomad = RecordingNomad(scaling)
    monkeypatch.setattr(capacity, "place_of", lambda cluster, *_: cluster)
    monkeypatch.setattr(capacity, "follow", lambda *_, **__: iter(()))
    cluster = Cluster(nomad, FakeConsul({}))  # type: ignore[arg-type]

    def move() -> None:
        with capacity.held_up(cluster, [Shortage("s", "v2", 50, 1, 4)]) as events:
            assert any("scaling v2 to" in str(event) for event in events)
            if is_interrupted:
                raise KeyboardInterrupt

    if is_interrupted:
        with pytest.raises(KeyboardInterrupt):
            move()
    else:
        move()
    assert nomad.registered == registered


ON_DEMAND = {"Name": "on-demand", "Count": 2}


def test_replicas_on_demand_are_part_of_what_scaling_first_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    nomad = RecordingNomad({"Min": 0, "Max": 5})
    nomad.current["TaskGroups"].append(ON_DEMAND)  # type: ignore[attr-defined]
    monkeypatch.setattr(capacity, "place_of", lambda cluster, *_: cluster)
    monkeypatch.setattr(capacity, "follow", lambda *_, **__: iter(()))
    cluster = Cluster(nomad, FakeConsul({}))  # type: ignore[arg-type]
    with capacity.held_up(cluster, [Shortage("s", "v2", 50, 3, 6)]) as events:
        assert [str(event) for event in events] == ["scaling v2 to 6 replicas first"]
    assert nomad.registered == [(4, 4), (4, 0)]


def test_a_policys_answer_is_without_the_replicas_on_demand() -> None:
    body = {"source": "prometheus", "query": "wish"}
    scaled = {"Name": "serve", "Count": 1, "Scaling": {"Policy": {"check": [{"in_flight": [body]}]}}}
    job = {"TaskGroups": [scaled, ON_DEMAND]}
    assert capacity.wish(FakePrometheus({"wish": [3.0]}), job) == 5.0  # type: ignore[arg-type]
