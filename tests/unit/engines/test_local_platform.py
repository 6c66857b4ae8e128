"""What a local cluster knows of its platform's jobs."""

from typing import Any

import pytest

from nomadserve import platform as shared
from nomadserve.engines.local import api, platform
from nomadserve.engines.local.ports import ports_at
from nomadserve.engines.local.record import Cluster

CLUSTER = Cluster(name="demo", offset=40, slot=4, ports=ports_at(40))


@pytest.mark.parametrize(
    ("stub", "has"),
    [
        (None, False),
        ({"Stop": False, "Status": "pending"}, True),
        ({"Stop": False, "Status": "running"}, True),
        ({"Stop": False, "Status": "dead"}, False),
        ({"Stop": True, "Status": "running"}, False),
    ],
    ids=["none", "pending", "running", "dead", "stopped, still ending"],
)
def test_a_job_that_is_stopped_or_dead_is_started_again(
    stub: dict[str, Any] | None, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "find_job", lambda cluster, job_id: stub)
    assert platform.has_job(CLUSTER, "prometheus") is has


def test_a_part_is_registered_once_its_former_allocation_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = ["running", "pending", "complete"]
    asked: list[str] = []

    def allocations(cluster: Cluster) -> list[dict[str, Any]]:
        asked.append(seen[len(asked)])
        other = {"JobID": "somebody-else", "ClientStatus": "running"}
        return [other, {"JobID": "nomadserve-prometheus", "ClientStatus": asked[-1]}]

    def register_job(cluster: Cluster, job: dict[str, Any], source: str) -> None:
        assert asked == seen

    monkeypatch.setattr(shared, "POLL_S", 0)
    monkeypatch.setattr(api, "config_entry", lambda *_: None)
    monkeypatch.setattr(api, "parse_job", lambda *_: {"ID": "nomadserve-prometheus"})
    monkeypatch.setattr(api, "allocations", allocations)
    monkeypatch.setattr(api, "register_job", register_job)
    platform.register(CLUSTER, "prometheus")
    assert asked == seen
