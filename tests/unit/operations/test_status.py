from typing import Any

import pytest

from nomadserve.operations.follow import replica_state
from nomadserve.operations.status import idle_state

SLEEPS = {"Stop": False, "TaskGroups": [{"Count": 0, "Scaling": {"Min": 0, "Enabled": True}}]}
STOPPED = {"Stop": True, "TaskGroups": [{"Count": 1}]}


def allocation(client: str, *, desired: str = "run") -> dict[str, Any]:
    return {"ClientStatus": client, "DesiredStatus": desired, "TaskStates": None}


@pytest.mark.parametrize(
    ("job", "allocations", "state"),
    [
        (SLEEPS, [], "asleep"),
        (SLEEPS, [allocation("complete", desired="stop")], "asleep"),
        (SLEEPS, [allocation("running", desired="stop"), allocation("complete", desired="stop")], "draining"),
        (SLEEPS, [allocation("running")], "draining"),
        (STOPPED, [], "stopped"),
        (STOPPED, [allocation("running", desired="stop")], "draining"),
        (None, [], "stopped"),
        ({"Stop": False, "TaskGroups": [{"Count": 1}]}, [], None),
    ],
    ids=[
        "asleep, never had one",
        "asleep, its replica has ended",
        "its replica ends",
        "the scheduler has not yet told its replica to end",
        "stopped",
        "stopped, its replica ends",
        "no job",
        "has replicas",
    ],
)
def test_a_version_sleeps_or_is_stopped_only_when_none_of_its_replicas_can_answer(
    job: dict[str, Any] | None, allocations: list[dict[str, Any]], state: str | None
) -> None:
    assert idle_state(job, allocations) == state


def test_a_replica_that_still_runs_but_shall_not_is_draining() -> None:
    assert replica_state(allocation("running", desired="stop")) == "draining"
    assert replica_state(allocation("complete", desired="stop")) == "complete"
    assert replica_state(allocation("pending")) == "starting"
