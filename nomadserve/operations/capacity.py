"""Whether a version has the replicas for the traffic it is to get, by the load that Prometheus measures now."""

import math
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nomadserve.nomad_api import Job, JobChanged
from nomadserve.operations import groups
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.events import Event, Note
from nomadserve.operations.follow import follow
from nomadserve.operations.measured import prometheus_of
from nomadserve.operations.policies import prometheus_queries
from nomadserve.operations.status import jobs_of
from nomadserve.prometheus_api import PrometheusApi, PrometheusUnreachable
from nomadserve.promql import LASTING_S
from nomadserve.weights import Weights

SCALED_WITHIN_S = 600.0  # a large model is fetched and loaded in minutes
MEASURED_WITHIN_S = 60.0
POLL_S = 1.0
RACES_MAX = 10


@dataclass(frozen=True, slots=True)
class Shortage:
    """A version that gains traffic and has too few healthy replicas for it."""

    service: str
    version: str
    weight: float
    healthy: int
    needed: int

    def __str__(self) -> str:
        replicas = f"{self.healthy} healthy replica{'' if self.healthy == 1 else 's'}"
        return f"`{self.version}` has {replicas}, and {self.weight} % of the load of now needs about {self.needed}"


def shortages(
    cluster: Cluster, service: str, before: Weights, after: Weights, asleep: Collection[str] = ()
) -> list[Shortage]:
    """Every version that `after` gives more than it can take; where the load is not known, only those asleep.

    The load is what the policies of the versions with traffic ask for now, in replicas. A version without a policy, or
    a cluster without Prometheus, tells nothing.

    asleep: versions that have no replica, and need one at least.
    """
    wished = wished_replicas(cluster, service, [version for version, weight in before.by_version.items() if weight])
    found = []
    for version, weight in after.by_version.items():
        needed = max(math.ceil((wished or 0) * weight / 100), int(version in asleep))
        healthy = sum(instance.is_passing for instance in cluster.consul.instances(f"{service}-{version}"))
        if weight > before.by_version.get(version, 0) and healthy < needed:
            found.append(Shortage(service, version, weight, healthy, needed))
    return found


def wished_replicas(cluster: Cluster, service: str, versions: list[str]) -> float | None:
    """The replicas that the policies of these versions ask for together; None where one of them can't tell."""
    prometheus = prometheus_of(cluster)
    if prometheus is None:
        return None
    total = 0.0
    for version in versions:
        job = job_of_version(cluster, service, version)
        wished = wish(prometheus, job) if job is not None else None
        if wished is None:
            return None
        total += wished
    return total


def wish(prometheus: PrometheusApi, job: Job) -> float | None:
    """The largest number of replicas that the job's own queries ask for; None where they give none."""
    try:
        answers = [value for _, query in prometheus_queries(job) for value in prometheus.values(query)]
    except PrometheusUnreachable:
        return None
    return max(answers) + groups.fixed(job) if answers else None


def job_of_version(cluster: Cluster, service: str, version: str) -> Job | None:
    """The version's job as it is registered now, wherever it is; None where it has none."""
    place = place_of(cluster, service, version)
    return place.nomad.job(f"{service}-{version}") if place else None


def place_of(cluster: Cluster, service: str, version: str) -> Cluster | None:
    """The cluster at the namespace and region of the version's job; None where it has none."""
    for stub in jobs_of(cluster, service):
        if stub["Meta"]["nomadserve_version"] == version:
            return cluster.at(namespace=stub["Namespace"], region=stub["Region"])
    return None


@contextmanager
def held_up(cluster: Cluster, lacking: list[Shortage]) -> Iterator[Iterator[Event]]:
    """Bring versions up to what they need, and keep the autoscaler from taking that away while traffic moves.

    Gives the events of bringing them up. Meanwhile each job's `min` is the needed number; it is put back at the end,
    and where that fails, by the next `up` of the version.
    """
    found = [(shortage, place_of(cluster, shortage.service, shortage.version)) for shortage in lacking]
    places = [(shortage, place) for shortage, place in found if place is not None]
    own = [job_of(place, shortage)["TaskGroups"][0].get("Scaling") for shortage, place in places]
    try:
        yield (event for shortage, place in places for event in scale(place, shortage))
    finally:
        for (shortage, place), scaling in zip(places, own, strict=True):
            if scaling is not None:
                put_back(place, shortage, scaling)


def scale(cluster: Cluster, shortage: Shortage) -> Iterator[Event]:
    """Start the replicas that are missing, and follow them until healthy."""
    job = job_of(cluster, shortage)
    group = job["TaskGroups"][0]
    scaling, fixed = group.get("Scaling"), groups.fixed(job)
    needed = max(shortage.needed - fixed, 0)
    count = min(needed, scaling["Max"]) if scaling else needed
    if count < needed:
        yield Note(text=f"`max` of {shortage.version} is {count + fixed}: it stays short of {shortage.needed}")
    if group["Count"] < count or scaling:
        group = group | {"Count": max(count, group["Count"])}
        evaluation = register(cluster, job, group | ({"Scaling": scaling | {"Min": count}} if scaling else {}))
        yield Note(text=f"scaling {shortage.version} to {group['Count'] + fixed} replicas first")
        yield from follow(cluster, job_of(cluster, shortage), evaluation_id=evaluation, timeout_s=SCALED_WITHIN_S)


def wait_until_measured(cluster: Cluster, shortage: Shortage) -> Iterator[Event]:
    """Wait until Prometheus knows the new replicas for long enough that the policy itself keeps them."""
    prometheus = prometheus_of(cluster)
    if prometheus is None:
        return
    place = place_of(cluster, shortage.service, shortage.version)
    started = groups.total(job_of(place, shortage)) if place else 0  # fewer than needed, where `max` is lower
    selector = f'service="{shortage.service}",version="{shortage.version}"'
    known = f"min_over_time(count(up{{{selector}}})[{LASTING_S}s:5s]) >= {min(shortage.needed, started)}"
    yield Note(text=f"waiting until Prometheus has measured {shortage.version} for {LASTING_S} s")
    deadline = time.monotonic() + MEASURED_WITHIN_S
    while time.monotonic() < deadline and not prometheus.values(known):
        time.sleep(POLL_S)


def put_back(cluster: Cluster, shortage: Shortage, scaling: dict[str, Any]) -> None:
    """Give the version its own `min` again; the count stays as it is."""
    for _ in range(RACES_MAX):
        job = job_of(cluster, shortage)
        group = job["TaskGroups"][0]
        try:
            if group["Scaling"]["Min"] != scaling["Min"]:
                register(cluster, job, group | {"Scaling": group["Scaling"] | {"Min": scaling["Min"]}})
        except JobChanged:  # the autoscaler counts as somebody else too
            continue
        return


def job_of(cluster: Cluster, shortage: Shortage) -> Job:
    """The version's job as it is now."""
    job = cluster.nomad.job(f"{shortage.service}-{shortage.version}")
    assert job is not None, "it was read a moment ago"
    return job


def register(cluster: Cluster, job: Job, group: dict[str, Any]) -> str:
    """Register the job with another first group, unless somebody else changed it meanwhile; the evaluation's id."""
    changed = job | {"TaskGroups": [group, *job["TaskGroups"][1:]]}
    return cluster.nomad.register(changed, source="", modify_index=job["JobModifyIndex"], preserve_counts=False)
