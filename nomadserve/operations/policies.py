"""Whether a scaling policy can work: every query of it is run once before the job is registered."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from nomadserve import promql
from nomadserve.errors import WrongInput
from nomadserve.nomad_api import Job
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.measured import prometheus_of
from nomadserve.prometheus_api import BadQuery, PrometheusApi, PrometheusUnreachable
from nomadserve.promql import WAKES
from nomadserve.spec import Scaling, Schedule, Service, zone_of


class PolicyRefused(WrongInput):
    """The autoscaler could not act on it."""


def check_policy(cluster: Cluster, service: Service, job: Job) -> list[str]:
    """What should be known about the service's policy, as lines for people.

    job: the parsed job, whose queries are the ones that the autoscaler will ask.

    Raises:
        PolicyRefused: a query gives several series, or no number; or nothing, although replicas run.
    """
    if service.scaling is None:
        return []
    notes = [note for schedule in service.scaling.schedules for note in clock_notes(schedule, datetime.now(UTC))]
    queries = dict(prometheus_queries(job))
    if not queries:
        return notes
    prometheus = prometheus_of(cluster)
    if prometheus is None:
        return [*notes, "no Prometheus is healthy in Consul: nothing is scaled until `nomadserve platform up`"]
    try:
        if service.scaling.query is not None:
            is_running = any(instance.is_passing for instance in cluster.consul.instances(service.job_id))
            notes += check_own_query(prometheus, service.scaling.query, is_running=is_running)
        for name, query in queries.items():
            check_rendered_query(prometheus, name, query)
        notes += unmeasured_gpus(prometheus, service)
        notes += unmeasured_gateways(prometheus, service.scaling)
    except PrometheusUnreachable as error:
        notes.append(f"the policy is not checked: {error.message}")
    return notes


def prometheus_queries(job: Job) -> Iterator[tuple[str, str]]:
    """Name and query of every check that asks Prometheus, from a job as Nomad's JSON has it."""
    policy = (job["TaskGroups"][0].get("Scaling") or {}).get("Policy") or {}
    for block in policy.get("check", []):
        for name, bodies in block.items():
            yield from ((name, body["query"]) for body in bodies if body.get("source") == "prometheus")


def check_own_query(prometheus: PrometheusApi, query: str, *, is_running: bool) -> list[str]:
    """Refuse a user's query that is no single number.

    Before the version's first replica runs, a query may give nothing: it may well measure that replica.
    """
    try:
        found = prometheus.values(query)
    except BadQuery as error:
        raise PolicyRefused(f"`query` of `scaling` is refused by Prometheus: {error.message}") from error
    if len(found) > 1:
        raise PolicyRefused(
            f"`query` of `scaling` gives {len(found)} series, and one is wanted: the number of replicas",
            hint="put `sum(…)` or `max(…)` around it",
        )
    if found and not math.isfinite(found[0]):
        raise PolicyRefused(
            f"`query` of `scaling` gives {found[0]}, which is no number of replicas",
            hint="is something divided by 0? `x / (y > 0) or vector(0)` gives 0 then",
        )
    if found:
        return []
    if is_running:
        raise PolicyRefused(
            "`query` of `scaling` gives nothing, although this version runs: is a name misspelt?",
            hint="if nothing is right for now, say what it means: `… or vector(0)`",
        )
    return ["`query` of `scaling` gives nothing yet: until it does, it asks for as many replicas as there are"]


def unmeasured_gpus(prometheus: PrometheusApi, service: Service) -> list[str]:
    """A line where target `gpu` has nothing to go by, although replicas of the version are measured."""
    assert service.scaling is not None
    if not any(target.kind == "gpu" for target in service.scaling.targets):
        return []
    selector = promql.selector(service)
    is_measured = prometheus.values(f"count(up{{{selector}}} == 1)")
    if not is_measured or prometheus.values(f"count({promql.GPU_UTILIZATION}{{{selector}}})"):
        return []
    return [
        f"target `gpu`: the replicas that run give no `{promql.GPU_UTILIZATION}` (no NVIDIA driver there?); until they "
        "do, it asks for as many replicas as there are"
    ]


def check_rendered_query(prometheus: PrometheusApi, name: str, query: str) -> None:
    """Refuse a whole query, as the autoscaler will ask it, that is not one number; a young Prometheus says nothing."""
    try:
        found = prometheus.values(query)
    except BadQuery as error:
        hint = "a bare number is no series: `vector(3)`" if name == "query" else ""
        raise PolicyRefused(f"Prometheus can't evaluate check `{name}`: {error.message}", hint=hint) from error
    if len(found) > 1 or any(math.isnan(value) for value in found):
        raise PolicyRefused(f"check `{name}` gives {found}, not one number")


def unmeasured_gateways(prometheus: PrometheusApi, scaling: Scaling) -> list[str]:
    """A line where nothing could wake a version that may sleep."""
    if not scaling.sleeps or prometheus.values(f'up{{job="{WAKES}"}} == 1'):
        return []
    return ["Prometheus measures no gateway that could wake it: it stays awake until `nomadserve platform up`"]


def clock_notes(schedule: Schedule, now: datetime) -> Iterator[str]:
    """A line where the zone's clocks change within a year: cron lines in UTC can't follow."""
    zone = zone_of(schedule.timezone)
    offset = now.astimezone(zone).utcoffset()
    for day in (now + timedelta(days=days) for days in range(366)):
        if zone is not None and day.astimezone(zone).utcoffset() != offset:
            yield (
                f"schedule `{schedule.name}`: the clocks of {schedule.timezone} change by {day:%Y-%m-%d}; "
                "run `nomadserve up` again then, or it is off by the difference"
            )
            return
