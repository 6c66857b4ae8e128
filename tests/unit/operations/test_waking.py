from typing import Any

import pytest

from nomadserve.entries import Waking
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.waking import STARTUP_GUESS_S, is_asleep, measured_startup_s, wanted_waking
from nomadserve.spec import Model, Scaling, Seconds, Service

MODEL = Model(name="digits", source="https://models.example/digits.onnx")
SLEEPS = Service(name="digits", models=(MODEL,), scaling=Scaling(min=0, max=3, hold=Seconds(20)))


def job(count: int, scaling: dict[str, Any] | None, *, stop: bool = False) -> dict[str, Any]:
    return {"Stop": stop, "TaskGroups": [{"Count": count, "Scaling": scaling}]}


@pytest.mark.parametrize(
    ("job", "asleep"),
    [
        (job(0, {"Min": 0, "Enabled": True}), True),
        (job(1, {"Min": 0, "Enabled": True}), False),
        (job(0, {"Min": 1, "Enabled": True}), False),
        (job(0, {"Min": 0, "Enabled": False}), False),
        (job(0, None), False),
        (job(0, {"Min": 0, "Enabled": True}, stop=True), False),
        (None, False),
    ],
    ids=["no replica", "a replica", "may not sleep", "not scaled", "scaled by hand", "stopped", "no job"],
)
def test_asleep_is_who_has_no_replica_and_would_get_one(job: dict[str, Any] | None, asleep: bool) -> None:
    assert is_asleep(job) is asleep


def test_a_version_with_replicas_at_all_times_has_nothing_to_wake() -> None:
    assert wanted_waking(Service(name="digits", models=(MODEL,)), None) is None
    assert wanted_waking(Service(name="digits", models=(MODEL,), scaling=Scaling(min=1, max=3)), None) is None


def test_a_start_up_is_guessed_until_it_was_measured() -> None:
    guessed = wanted_waking(SLEEPS, None)
    assert guessed == Waking(startup_s=STARTUP_GUESS_S, notice_s=5, hold_s=20)
    measured = wanted_waking(SLEEPS, guessed, startup_s=7)
    assert measured == Waking(startup_s=7, notice_s=5, hold_s=20)
    assert measured.expected_s == 12


@pytest.mark.parametrize(("known", "found", "kept"), [(7, 8, 7), (7, 9.5, 9.5), (100, 120, 100), (100, 60, 60)])
def test_a_start_up_that_differs_little_is_no_news(known: float, found: float, kept: float) -> None:
    waking = wanted_waking(SLEEPS, Waking(startup_s=known, notice_s=1, hold_s=1), startup_s=found)
    assert waking and waking.startup_s == kept


class FakeNomad:
    def __init__(self, stubs: list[dict[str, Any]]) -> None:
        self.stubs = stubs

    def allocations(self, job_id: str) -> list[dict[str, Any]]:
        assert job_id == "digits-v1"
        return self.stubs


def stub(created: str, healthy_at: str | None) -> dict[str, Any]:
    status = {"Healthy": True, "Timestamp": healthy_at} if healthy_at else {"Healthy": False, "Timestamp": created}
    return {"CreateTime": int(float(created) * 1e9), "DeploymentStatus": status}


def test_the_newest_healthy_replica_tells_the_start_up() -> None:
    stubs = [
        stub("0", "1970-01-01T00:01:00Z"),
        stub("100", "1970-01-01T00:01:46.123456789Z"),
        {"CreateTime": 1, "DeploymentStatus": None},
    ]
    assert measured_startup_s(Cluster(FakeNomad(stubs), None), "digits-v1") == 7  # type: ignore[arg-type]


def test_without_a_healthy_replica_no_start_up_is_known() -> None:
    assert measured_startup_s(Cluster(FakeNomad([]), None), "digits-v1") is None  # type: ignore[arg-type]
