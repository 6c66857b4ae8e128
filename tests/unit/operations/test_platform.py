import re
from typing import Any

import pytest

from nomadserve import entries, platform
from nomadserve.cli.platform import defaults
from nomadserve.consul_api import Instance
from nomadserve.errors import WrongInput
from nomadserve.operations import platform as operations
from nomadserve.operations.cluster import Cluster


def gateway(*names: str) -> dict[str, Any]:
    services = [{"Name": name, "PortLabel": "gateway"} for name in names]
    return {"ID": "nomadserve-gateway", "Stop": False, "TaskGroups": [{"Services": services}]}


OWN = ("nomadserve", "nomadserve-gateway-metrics")


class FakeNomad:
    def __init__(self, jobs: dict[str, dict[str, Any]]) -> None:
        self.jobs = jobs

    def at(self, **_: Any) -> "FakeNomad":
        return self

    def job(self, job_id: str) -> dict[str, Any] | None:
        return self.jobs.get(job_id)

    def deregister(self, job_id: str) -> None:
        del self.jobs[job_id]

    def allocations(self, job_id: str) -> list[dict[str, Any]]:
        return []


class FakeConsul:
    def __init__(self, healthy: dict[str, list[bool]], routed: tuple[str, ...] = ()) -> None:
        self.healthy = healthy
        self.routed = routed

    def entry(self, kind: str, name: str) -> dict[str, Any]:
        assert (kind, name) == ("service-router", "nomadserve")
        return entries.with_routes(
            None, "", [route for each in self.routed for route in entries.routes(each, {"v1": 1})]
        )

    def instances(self, service: str) -> list[Instance]:
        return [Instance("127.0.0.1", 9, passes) for passes in self.healthy.get(service, [])]


def cluster(jobs: dict[str, dict[str, Any]], *routed: str, **healthy: list[bool]) -> Cluster:
    return Cluster(FakeNomad(jobs), FakeConsul(healthy, routed))  # type: ignore[arg-type]


def test_a_new_gateway_job_has_the_names_of_the_routed_services() -> None:
    hcl = platform.render_part("gateway", platform.Settings(), routed=["digits", "faces"])
    assert re.findall(r'name     = "(.+)"', hcl) == [*OWN[:1], "digits", "faces", *OWN[1:]]
    assert hcl.count('\n      port     = "gateway"') == 3


def test_a_gateway_with_services_is_not_stopped_unasked() -> None:
    jobs = {"nomadserve-gateway": gateway(*OWN, "digits")}
    with pytest.raises(WrongInput, match="the gateway routes to `digits`"):
        list(operations.platform_down(cluster(jobs, "digits"), platform.PARTS, is_forced=False))
    assert jobs


@pytest.mark.parametrize(("names", "is_forced"), [((), False), (("digits",), True)])
def test_all_parts_are_stopped_the_last_first(names: tuple[str, ...], is_forced: bool) -> None:
    jobs = {f"nomadserve-{part}": gateway(*OWN, *names) for part in platform.PARTS}
    *stopped, done = operations.platform_down(cluster(jobs, *names), platform.PARTS, is_forced=is_forced)
    assert [event.job_id for event in stopped] == [  # type: ignore[attr-defined]
        "nomadserve-autoscaler",
        "nomadserve-prometheus",
        "nomadserve-gateway",
    ]
    assert not jobs
    assert str(done) == "stopped: gateway, prometheus, autoscaler"


def test_where_nothing_runs_nothing_is_stopped() -> None:
    [done] = operations.platform_down(cluster({}), platform.PARTS, is_forced=False)
    assert str(done) == "nothing to do: none of that runs"


@pytest.mark.parametrize(
    ("is_registered", "checks", "state"),
    [
        (True, [True, True], "healthy"),
        (True, [True, False], "failing"),
        (True, [], "starting"),
        (False, [], "absent"),
        (False, [True], "healthy"),  # somebody else's
    ],
)
def test_state_of_a_part_is_what_nomad_runs_and_consul_checks(
    is_registered: bool, checks: list[bool], state: str
) -> None:
    jobs = {"nomadserve-gateway": gateway(*OWN)} if is_registered else {}
    assert operations.part_status(cluster(jobs, nomadserve=checks), "gateway").state == state


class StoppedNomad(FakeNomad):
    """A Nomad whose gateway was just stopped; `seen` is what became of its allocation, each time it is asked."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__({})
        self.seen = seen
        self.left: list[str] | None = None

    def parse(self, hcl: str) -> dict[str, Any]:
        return {"ID": "nomadserve-gateway"}

    def plan(self, job: dict[str, Any]) -> dict[str, Any]:
        return {"JobModifyIndex": 7, "Diff": {}}

    def allocations(self, job_id: str) -> list[dict[str, Any]]:
        return [{"ClientStatus": self.seen.pop(0)}]

    def register(self, job: dict[str, Any], **_: Any) -> None:
        self.left = list(self.seen)


def test_a_part_that_was_just_stopped_is_registered_once_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "POLL_S", 0)
    nomad = StoppedNomad(["running", "running", "complete", "never asked"])
    assert operations.register(Cluster(nomad, FakeConsul({})), "gateway", platform.Settings())  # type: ignore[arg-type]
    assert nomad.left == ["never asked"]


def test_addresses_of_agents_on_this_machine_hold_for_every_node() -> None:
    settings = defaults({"NOMAD_ADDR": "http://127.0.0.1:5646", "CONSUL_HTTP_ADDR": "http://127.0.0.1:9500"})
    assert settings.nomad_url == "http://127.0.0.1:5646"
    assert settings.consul_http == "127.0.0.1:9500"


def test_addresses_of_a_cluster_elsewhere_do_not() -> None:
    settings = defaults({"NOMAD_ADDR": "https://nomad.example:4646", "CONSUL_HTTP_ADDR": "https://consul.example"})
    assert settings.nomad_url == "http://127.0.0.1:4646"
    assert settings.consul_http == "127.0.0.1:8500"
