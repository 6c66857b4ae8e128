"""Take a version, or a whole service, away again: its traffic first, then its job."""

import time
from collections.abc import Iterator

from nomadserve import entries
from nomadserve.consul_api import Entry
from nomadserve.errors import TimedOut, WrongInput
from nomadserve.operations import traffic
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.events import Done, Event, JobStopped
from nomadserve.operations.status import jobs_of
from nomadserve.weights import Weights

# A replica drains for its `kill_timeout` (30 s) after `shutdown_delay`; a busy node needs a little more.
STOPPED_WITHIN_S = 90.0
POLL_S = 0.3


def down_version(cluster: Cluster, service: str, version: str) -> Iterator[Event]:
    """Stop one version that has no traffic, and remove its entries.

    Raises:
        WrongInput: there is no such version, or it has traffic.
        TimedOut: its replicas do not end.
    """
    found = traffic.current_weights(cluster, service)
    weights = found[0].by_version if found else {}
    job_id = f"{service}-{version}"
    has_job = job_id in {job["ID"] for job in jobs_of(cluster, service)}
    if version not in weights and not has_job:
        raise WrongInput(
            f"service `{service}` has no version `{version}`", hint=f"`nomadserve status {service}` lists its versions"
        )
    if weights.get(version):
        raise WrongInput(
            f"version `{version}` of `{service}` still has {weights[version]} % of the traffic",
            hint=way_out(service, version, list(weights)),
        )
    if found and version in weights:
        yield from forget_version(cluster, service, version, *found)
    if has_job:
        yield from stop_jobs(cluster, [job_id])
    yield Done(text=f"{job_id} is gone")


def way_out(service: str, version: str, versions: list[str]) -> str:
    """How to free a version of its traffic."""
    others = [other for other in versions if other != version]
    if not others:
        return f"it is the only version: `nomadserve down {service}` takes the whole service away"
    return f"move the traffic first: `nomadserve split {service} {others[0]}=100`"


def forget_version(cluster: Cluster, service: str, version: str, weights: Weights, splitter: Entry) -> Iterator[Event]:
    """Take a version without weight out of splitter, failovers and routes; then delete its own entries."""
    rest = Weights({other: share for other, share in weights.by_version.items() if other != version})
    router = cluster.consul.entry("service-router", entries.ROUTER)
    routes = [
        route
        for route in entries.own_routes(router, service)
        if route["Destination"].get("Service") != f"{service}-{version}"
    ]
    yield from traffic.write_routes(cluster, service, routes)
    changes = traffic.reweigh(cluster, service, rest, splitter=splitter, verb="down")
    # The splitter leads to the version until it is rewritten: first it, then the failovers, then what they led to.
    yield from traffic.write(cluster, list(reversed(changes)))
    own = [entries.service_defaults(f"{service}-{version}"), entries.resolver(service, version, [])]
    yield from traffic.write(cluster, traffic.removal_changes(cluster, own))


def down_service(cluster: Cluster, service: str) -> Iterator[Event]:
    """Remove every entry of a service, in the reverse of the order in which they came, then stop its jobs.

    Raises:
        WrongInput: there is no such service.
        TimedOut: its replicas do not end.
    """
    found = traffic.current_weights(cluster, service)
    job_ids = [job["ID"] for job in jobs_of(cluster, service)]
    if found is None and not job_ids:
        raise WrongInput(f"there is no service `{service}`", hint="`nomadserve status` lists the services")
    yield from traffic.name_at_gateway(cluster, service, is_wanted=False)
    if found:
        yield from traffic.write_routes(cluster, service, [])
        own = entries.traffic_entries(service, found[0], {})
        yield from traffic.write(cluster, traffic.removal_changes(cluster, own))
    yield from stop_jobs(cluster, job_ids)
    yield Done(text=f"{service} is gone")


def stop_jobs(cluster: Cluster, job_ids: list[str]) -> Iterator[Event]:
    """Stop the jobs at once and wait until each has no living allocation."""
    for job_id in job_ids:
        cluster.nomad.deregister(job_id)
    deadline = time.monotonic() + STOPPED_WITHIN_S
    for job_id in job_ids:
        while any(stub["ClientStatus"] in {"pending", "running"} for stub in cluster.nomad.allocations(job_id)):
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"job `{job_id}` is stopped, but replicas of it still run after {STOPPED_WITHIN_S:.0f} s",
                    hint=f"`nomad job status {job_id}` shows them; they end with their kill_timeout",
                )
            time.sleep(POLL_S)
        yield JobStopped(job_id=job_id)
