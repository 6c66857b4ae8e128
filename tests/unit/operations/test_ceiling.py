"""`max_total` against an autoscaler that acts between any two steps, on a Nomad that keeps `max` as the real one."""

import copy
import random
from typing import Any

import pytest

from nomadserve.errors import BlockedOnCapacity, WrongInput
from nomadserve.nomad_api import Job, JobChanged
from nomadserve.operations import ceiling, groups
from nomadserve.operations.cluster import Cluster

CEILING = 6


def job(version: str, count: int, bounds: tuple[int, int] | None = None, *, total: int | None = CEILING) -> Job:
    scaling = {"Min": bounds[0], "Max": bounds[1], "Policy": {"max_total": total} if total else {}} if bounds else None
    return {
        "ID": f"s-{version}",
        "Namespace": "default",
        "Region": "global",
        "Stop": False,
        "Stable": True,
        "Version": 3,
        "JobModifyIndex": 1,
        "Meta": {"nomadserve_service": "s", "nomadserve_version": version},
        "TaskGroups": [{"Name": "serve", "Count": count, "Scaling": scaling}],
    }


class Nomad:
    """Holds jobs; before each reading and writing, an autoscaler may set any count that Nomad would let it."""

    def __init__(self, *jobs: Job, seed: int | None = None, greedy: bool = False) -> None:
        self.by_id = {each["ID"]: each for each in jobs}
        self.chance = random.Random(seed) if seed is not None else None
        self.greedy = greedy
        self.former: dict[str, Job] = {}
        self.highest = self.total()

    def total(self) -> int:
        return sum(groups.total(each) for each in self.by_id.values())

    def autoscale(self) -> None:
        for each in self.by_id.values() if self.chance else ():
            group = each["TaskGroups"][0]
            scaling = group["Scaling"]
            if scaling and self.chance and self.chance.random() < 0.5:
                wish = scaling["Max"] if self.greedy else self.chance.randint(scaling["Min"], scaling["Max"])
                if wish != group["Count"]:
                    group["Count"] = wish
                    each["JobModifyIndex"] += 1
        self.highest = max(self.highest, self.total())

    def at(self, **_: Any) -> "Nomad":
        return self

    def jobs(self) -> list[Job]:
        return list(self.by_id.values())

    def job(self, job_id: str) -> Job | None:
        self.autoscale()
        return copy.deepcopy(self.by_id.get(job_id))

    def register(self, job: Job, *, source: str, modify_index: int, preserve_counts: bool) -> str:
        self.autoscale()
        assert not preserve_counts
        if self.by_id[job["ID"]]["JobModifyIndex"] != modify_index:
            raise JobChanged("somebody else was faster")
        group = job["TaskGroups"][0]
        assert group["Scaling"]["Min"] <= group["Count"] <= group["Scaling"]["Max"], "Nomad refuses such a job"
        self.by_id[job["ID"]] = copy.deepcopy(job) | {"JobModifyIndex": modify_index + 1}
        self.highest = max(self.highest, self.total())
        return "evaluation"

    def stable_revision(self, job_id: str, *, before: int) -> Job | None:
        assert before == self.by_id[job_id]["Version"]
        return self.former.get(job_id)

    def shares(self) -> dict[str, int]:
        return {
            each["Meta"]["nomadserve_version"]: each["TaskGroups"][0]["Scaling"]["Max"] for each in self.by_id.values()
        }


def cluster_of(nomad: Nomad) -> Cluster:
    return Cluster(nomad, None)  # type: ignore[arg-type]


def test_shares_move_with_the_traffic_and_the_files_max_is_not_forgotten() -> None:
    nomad = Nomad(job("v1", 5, (1, 5)), job("v2", 1, (1, 1)))
    nomad.by_id["s-v2"]["TaskGroups"][0]["Scaling"]["Policy"]["own_max"] = 5
    told = ceiling.settle(cluster_of(nomad), "s", {"v1": 0, "v2": 100})
    assert [str(change) for change in told] == [
        "v1 may have 1 of 6 for all versions, not 5 replicas, and so 4 of 5 stop",
        "v2 may have 5 of 6 for all versions, not 1 replica",
    ]
    assert nomad.shares() == {"v1": 1, "v2": 5}
    ceiling.settle(cluster_of(nomad), "s", {"v1": 100, "v2": 0})
    assert nomad.shares() == {"v1": 5, "v2": 1}


def test_a_second_time_changes_nothing() -> None:
    nomad = Nomad(job("v1", 2, (1, 5)), job("v2", 1, (1, 5)))
    assert ceiling.settle(cluster_of(nomad), "s", {"v1": 50, "v2": 50})
    assert not ceiling.settle(cluster_of(nomad), "s", {"v1": 50, "v2": 50})


def test_without_a_ceiling_every_version_has_its_own_max_again() -> None:
    lowered = job("v1", 1, (1, 2), total=None)
    lowered["TaskGroups"][0]["Scaling"]["Policy"]["own_max"] = 9
    nomad = Nomad(lowered, job("v2", 3, total=None))
    ceiling.settle(cluster_of(nomad), "s", {"v1": 100})
    assert lowered["ID"] in nomad.by_id
    assert nomad.by_id["s-v1"]["TaskGroups"][0]["Scaling"] == {"Min": 1, "Max": 9, "Policy": {}}


def test_replicas_on_demand_count_too() -> None:
    mixed = job("v1", 2, (0, 5))
    mixed["TaskGroups"].append({"Name": "on-demand", "Count": 1})
    nomad = Nomad(mixed, job("v2", 3))
    ceiling.settle(cluster_of(nomad), "s", {"v1": 100})
    assert nomad.by_id["s-v1"]["TaskGroups"][0]["Scaling"]["Max"] == CEILING - 3 - 1


def test_lending_takes_no_replica_away_and_gives_no_more_than_what_is_kept_afterwards() -> None:
    nomad = Nomad(job("v1", 3, (1, 5)), job("v2", 1, (1, 1)))
    nomad.by_id["s-v2"]["TaskGroups"][0]["Scaling"]["Policy"]["own_max"] = 5
    ceiling.lend(cluster_of(nomad), "s", {"v1": 100, "v2": 0}, {"v1": 0, "v2": 100})
    assert nomad.shares() == {"v1": 3, "v2": 3}
    assert nomad.total() == 4


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for."""
    monkeypatch.setattr(ceiling, "SETTLED_WITHIN_S", 0.05)
    monkeypatch.setattr(ceiling, "POLL_S", 0.01)


def deploying(version: str, count: int, most: int, *, before: int) -> Nomad:
    """Two versions; a deployment of the one named runs that, where it fails, brings `before` replicas back."""
    other = "v1" if version == "v2" else "v2"
    nomad = Nomad(job(version, count, (1, most)) | {"Stable": False}, job(other, 1, (1, 1)))
    nomad.by_id[f"s-{other}"]["TaskGroups"][0]["Scaling"]["Policy"]["own_max"] = 5
    nomad.former[f"s-{version}"] = job(version, before, (1, before))
    return nomad


@pytest.mark.usefixtures("hurried")
def test_what_a_failed_deployment_may_bring_back_is_given_to_nobody() -> None:
    nomad = deploying("v1", 1, 1, before=5)
    told = ceiling.settle(cluster_of(nomad), "s", {"v1": 0, "v2": 100})
    assert nomad.shares() == {"v1": 1, "v2": 1}
    assert "warning: v2 keeps 1 while another version is deployed" in str(told[-1])


@pytest.mark.usefixtures("hurried")
def test_once_the_deployment_is_over_it_is_given() -> None:
    nomad = deploying("v1", 1, 1, before=5)
    nomad.by_id["s-v1"]["Stable"] = True
    ceiling.settle(cluster_of(nomad), "s", {"v1": 0, "v2": 100})
    assert nomad.shares()["v2"] == 5


@pytest.mark.usefixtures("hurried")
def test_a_new_version_waits_for_it_too_and_then_says_so() -> None:
    nomad = deploying("v1", 3, 3, before=5)
    with pytest.raises(BlockedOnCapacity, match="while another version is deployed, its former replicas may come back"):
        ceiling.wait_for_room(cluster_of(nomad), "s", "v3", job("v3", 1, (1, 1)))
    nomad.by_id["s-v1"]["Stable"] = True
    ceiling.wait_for_room(cluster_of(nomad), "s", "v3", job("v3", 1, (1, 1)))


def new_shares(new: Job, *others: Job, version: str = "v2", **weights: float) -> dict[str, int]:
    versions = ceiling.running(cluster_of(Nomad(*others)), "s")
    return ceiling.shares_with("s", version, new, versions, weights)


def test_a_new_version_gets_its_min_from_what_nobody_uses() -> None:
    assert new_shares(job("v2", 1, (1, 5)), job("v1", 5, (1, 6)), v1=100, v2=0) == {"v1": 5, "v2": 1}


def test_a_new_version_takes_no_replica_away_and_says_who_has_them() -> None:
    with pytest.raises(BlockedOnCapacity) as caught:
        new_shares(job("v2", 1, (1, 5)), job("v1", 6, (1, 6)), v1=100, v2=0)
    assert caught.value.message == "`max_total` (6) has no room for `s-v2`, which needs 1: v1 has 6"
    assert caught.value.exit_code == 4


def test_mins_that_can_never_fit_are_wrong_input() -> None:
    with pytest.raises(WrongInput, match=r"`max_total` \(6\) has no room for the least .*: v1 4, v2 3"):
        new_shares(job("v2", 3, (3, 5)), job("v1", 4, (4, 6)), v1=100, v2=0)


def test_the_lowest_ceiling_of_all_versions_holds() -> None:
    found = new_shares(job("v2", 1, (1, 9), total=20), job("v1", 2, (1, 6)), v1=50, v2=50)
    assert sum(found.values()) == CEILING


def test_an_up_of_a_version_that_runs_leaves_the_shares_as_they_are() -> None:
    others = job("v1", 5, (1, 5)), job("v2", 1, (1, 1))
    others[1]["TaskGroups"][0]["Scaling"]["Policy"]["own_max"] = 5
    assert new_shares(job("v2", 1, (1, 5)), *others, v1=0, v2=100) == {"v1": 5, "v2": 1}


def test_a_lower_ceiling_in_the_file_of_a_version_that_runs_is_obeyed() -> None:
    found = new_shares(job("v2", 1, (1, 4), total=4), job("v1", 5, (1, 5)), job("v2", 1, (1, 1)), v1=50, v2=50)
    assert found == {"v1": 2, "v2": 2}


def test_a_higher_min_in_the_file_of_a_version_that_runs_takes_what_it_needs() -> None:
    found = new_shares(job("v2", 3, (3, 5)), job("v1", 5, (1, 5)), job("v2", 1, (1, 1)), v1=100, v2=0)
    assert found == {"v1": 3, "v2": 3}


@pytest.mark.parametrize("greedy", [False, True], ids=["any count", "always the most"])
@pytest.mark.parametrize("seed", range(20))
def test_the_sum_never_exceeds_the_ceiling_whatever_the_autoscaler_does_meanwhile(seed: int, greedy: bool) -> None:
    nomad = Nomad(job("v1", 4, (1, 4)), job("v2", 1, (1, 2)), seed=seed, greedy=greedy)
    for each in nomad.by_id.values():
        each["TaskGroups"][0]["Scaling"]["Policy"]["own_max"] = CEILING
    chance = random.Random(seed)
    before = {"v1": 100, "v2": 0}
    for _ in range(20):
        share = chance.choice([0, 10, 50, 90, 100])
        after = {"v1": share, "v2": 100 - share}
        if chance.random() < 0.5:
            ceiling.lend(cluster_of(nomad), "s", before, after)
        ceiling.settle(cluster_of(nomad), "s", after)
        assert sum(nomad.shares().values()) == CEILING
        before = after
    assert nomad.highest <= CEILING
    assert nomad.highest == CEILING or not greedy, "the room that there is can be used"


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (6, 6, ""),
        (4, 6, ""),
        (9, None, ""),
        (9, 6, "`max_total` is 6, by the file of v1, not the 9 of this file: the lowest holds"),
        (None, 6, "`max_total` is 6, by the file of v1, although this file has none: the lowest holds"),
    ],
)
def test_whose_ceiling_holds_is_said_where_it_is_not_this_files(
    own: int | None, other: int | None, expected: str
) -> None:
    versions = ceiling.running(cluster_of(Nomad(job("v1", 2, (1, 4), total=other), job("v2", 1, (1, 4)))), "s")
    notes = ceiling.lower_elsewhere("v2", job("v2", 1, (1, 4), total=own), versions)
    assert bool(notes) == bool(expected)
    assert all(expected in note for note in notes)
