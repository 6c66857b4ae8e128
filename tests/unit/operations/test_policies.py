from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from nomadserve import spec
from nomadserve.consul_api import Instance
from nomadserve.operations import policies
from nomadserve.operations.cluster import Cluster
from nomadserve.prometheus_api import BadQuery, PrometheusUnreachable

NAN, INFINITY = float("nan"), float("inf")
RENDERED = "clamp_max(…)"


class FakePrometheus:
    """Answers each query as told, an unknown one with a single number."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers

    def values(self, query: str) -> list[float]:
        answer = self.answers.get(query, [1.0])
        if isinstance(answer, Exception):
            raise answer
        found: list[float] = answer
        return found


class FakeConsul:
    def __init__(self, healthy: int) -> None:
        self.healthy = healthy

    def instances(self, service: str) -> list[Instance]:
        assert service == "digits-v1"
        return [Instance("127.0.0.1", 1, True)] * self.healthy


Check = Callable[..., list[str]]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Check:
    """Checks a service with an own query `own` against a Prometheus with these answers."""

    def run(answers: Mapping[str, Any] | None, *, healthy: int = 0, name: str = "query") -> list[str]:
        prometheus = None if answers is None else FakePrometheus(answers)
        monkeypatch.setattr(policies, "prometheus_of", lambda _: prometheus)
        service = spec.Service(name="digits", scaling=spec.Scaling(min=1, max=3, query="own"))
        body = {"source": "prometheus", "query": RENDERED}
        policy = {"check": [{name: [body]}, {"schedule-office": [{"strategy": []}]}]}
        job = {"TaskGroups": [{"Scaling": {"Policy": policy}}]}
        return policies.check_policy(Cluster(None, FakeConsul(healthy)), service, job)  # type: ignore[arg-type]

    return run


def test_one_number_is_fine(check: Check) -> None:
    assert check({"own": [2.0]}) == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([1.0, 2.0, 3.0], "`query` of `scaling` gives 3 series, and one is wanted: the number of replicas"),
        ([NAN], "`query` of `scaling` gives nan, which is no number of replicas"),
        ([INFINITY], "`query` of `scaling` gives inf, which is no number of replicas"),
        (BadQuery("1:7: parse error"), "`query` of `scaling` is refused by Prometheus: 1:7: parse error"),
    ],
)
def test_what_is_no_single_number_is_refused(check: Check, answer: Any, message: str) -> None:
    with pytest.raises(policies.PolicyRefused) as refused:
        check({"own": answer})
    assert refused.value.message == message
    assert refused.value.exit_code == 2


def test_nothing_is_normal_before_the_first_replica(check: Check) -> None:
    [note] = check({"own": []})
    assert "gives nothing yet" in note


def test_nothing_is_refused_once_replicas_run(check: Check) -> None:
    with pytest.raises(policies.PolicyRefused, match="gives nothing, although this version runs") as refused:
        check({"own": []}, healthy=1)
    assert refused.value.hint == "if nothing is right for now, say what it means: `… or vector(0)`"


def test_a_bare_number_is_refused_with_what_to_write(check: Check) -> None:
    with pytest.raises(policies.PolicyRefused, match="expected type instant vector") as refused:
        check({RENDERED: BadQuery("expected type instant vector")})
    assert refused.value.hint == "a bare number is no series: `vector(3)`"


@pytest.mark.parametrize("answer", [[1.0, 2.0], [NAN]])
def test_every_check_of_the_job_is_asked(check: Check, answer: list[float]) -> None:
    with pytest.raises(policies.PolicyRefused, match="check `in_flight` gives"):
        check({RENDERED: answer}, name="in_flight")


def test_a_young_prometheus_that_says_nothing_yet_stops_nobody(check: Check) -> None:
    assert check({RENDERED: []}) == []


def test_without_a_prometheus_nothing_is_refused_but_said(check: Check) -> None:
    assert check(None) == ["no Prometheus is healthy in Consul: nothing is scaled until `nomadserve platform up`"]


def test_a_prometheus_that_does_not_answer_stops_nobody(check: Check) -> None:
    [note] = check({"own": PrometheusUnreachable("no Prometheus answers")})
    assert note == "the policy is not checked: no Prometheus answers"


@pytest.mark.parametrize(("measured", "notes"), [([1.0], 0), ([], 1)])
def test_a_sleeper_that_no_gateway_could_wake_is_said_to_stay_awake(measured: list[float], notes: int) -> None:
    prometheus = FakePrometheus({'up{job="nomadserve-wakes"} == 1': measured})
    found = policies.unmeasured_gateways(prometheus, spec.Scaling(min=0, max=1))  # type: ignore[arg-type]
    assert len(found) == notes
    assert policies.unmeasured_gateways(prometheus, spec.Scaling(min=1, max=1)) == []  # type: ignore[arg-type]


RUNNING = 'count(up{service="digits",version="v1"} == 1)'
MEASURED = 'count(nomadserve_gpu_utilization{service="digits",version="v1"})'


@pytest.mark.parametrize(
    ("answers", "is_said"),
    [({RUNNING: [2.0], MEASURED: []}, True), ({RUNNING: [2.0], MEASURED: [4.0]}, False), ({RUNNING: []}, False)],
    ids=["no driver", "measured", "nothing runs yet"],
)
def test_replicas_whose_gpus_nobody_measures_are_told(answers: Mapping[str, Any], is_said: bool) -> None:
    service = spec.Service(name="digits", scaling=spec.Scaling(min=1, max=3, targets=(spec.GpuLoad(value=70),)))
    notes = policies.unmeasured_gpus(FakePrometheus(answers), service)  # type: ignore[arg-type]
    assert [note.startswith("target `gpu`: the replicas that run give no") for note in notes] == [True] * is_said


@pytest.mark.parametrize(("zone", "day"), [("Europe/Berlin", "2030-03-31"), ("UTC", None), ("Asia/Tokyo", None)])
def test_the_next_change_of_the_clocks_is_said(zone: str, day: str | None) -> None:
    schedule = spec.Schedule(name="office", start="0 9 * * *", end="0 18 * * *", min=2, timezone=zone)
    notes = list(policies.clock_notes(schedule, datetime(2030, 1, 15, 12, tzinfo=UTC)))
    assert [f"clocks of {zone} change by {day};" in note for note in notes] == ([True] if day else [])
