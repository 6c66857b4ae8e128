"""Take a version, or a whole service, away again: its traffic first, then its job."""

import time
from collections.abc import Iterator

from nomadserve import entries
from nomadserve.errors import TimedOut, WrongInput
from nomadserve.nomad_api import Job, is_living
from nomadserve.operations import ceiling, traffic
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.events import Done, Event, JobStopped, Note
from nomadserve.operations.status import jobs_of
from nomadserve.operations.waking import wakings_of
from nomadserve.weights import Weights

# A replica drains for its `kill_timeout` (30 s) after `shutdown_delay`; a busy node needs a little more.
STOPPED_WITHIN_S = 90.0
POLL_S = 0.3


def down_version(cluster: Cluster, service: str, version: str) -> Iterator[Event]:
    """Stop one version that has no traffic, and remove its entries. Cut short, it can be repeated.

    Raises:
        WrongInput: there is no such version, or it has traffic.
        TimedOut: its replicas do not end.
    """
    found = traffic.current_weights(cluster, service)
    weights = found[0].by_version if found else {}
    job_id = f"{service}-{version}"
    jobs = [job for job in jobs_of(cluster, service) if job["ID"] == job_id]
    own = [entry for entry in traffic.own_entries(cluster, service) if entry["Name"] == job_id]
    if version not in weights and not jobs and not own:
        raise WrongInput(
            f"service `{service}` has no version `{version}`", hint=f"`nomadserve status {service}` lists its versions"
        )
    if weights.get(version):
        raise WrongInput(
            f"version `{version}` of `{service}` still has {weights[version]} % of the traffic",
            hint=way_out(service, version, list(weights)),
        )
    # The splitter leads to the version until it is rewritten: first it, then all else that leads there, then its own.
    if found:
        rest = Weights({other: share for other, share in weights.items() if other != version})
        yield from traffic.write(cluster, traffic.reweigh(cluster, service, rest, splitter=found[1], verb="down"))
    yield from forget_routes(cluster, service, version)
    yield from traffic.remove(cluster, own)
    yield from stop_all(cluster, jobs)
    if found:
        yield from (Note(text=str(change)) for change in ceiling.settle(cluster, service, weights))
    yield Done(text=f"{job_id} is gone")


def way_out(service: str, version: str, versions: list[str]) -> str:
    """How to free a version of its traffic."""
    others = [other for other in versions if other != version]
    if not others:
        return f"it is the only version: `nomadserve down {service}` takes the whole service away"
    return f"move the traffic first: `nomadserve split {service} {others[0]}=100`"


def forget_routes(cluster: Cluster, service: str, version: str) -> Iterator[Event]:
    """Take the version's own route away, and no other."""
    timeouts_s = entries.timeouts_of(cluster.consul.entry("service-router", entries.ROUTER), service)
    if timeouts_s.pop(version, None) is not None:
        wakings = wakings_of(cluster, service, timeouts_s)
        routes = entries.routes(service, timeouts_s, wakings) if timeouts_s else []
        yield from traffic.write_routes(cluster, service, routes)


def down_service(cluster: Cluster, service: str) -> Iterator[Event]:
    """Remove every entry of a service, in the reverse of the order in which they came, then stop its jobs.

    Cut short, it can be repeated.

    Raises:
        WrongInput: there is no such service.
        TimedOut: its replicas do not end.
    """
    own = traffic.own_entries(cluster, service)
    jobs = jobs_of(cluster, service)
    routed = entries.routed_services(cluster.consul.entry("service-router", entries.ROUTER))
    if not own and not jobs and service not in routed:
        raise WrongInput(f"there is no service `{service}`", hint="`nomadserve status` lists the services")
    yield from traffic.name_at_gateway(cluster, service, is_wanted=False)
    if service in routed:
        yield from traffic.write_routes(cluster, service, [])
    yield from traffic.remove(cluster, own)
    yield from stop_all(cluster, jobs)
    yield Done(text=f"{service} is gone")


def stop_all(cluster: Cluster, jobs: list[Job]) -> Iterator[Event]:
    """Stop the jobs (stubs), wherever each is, and wait until their replicas have ended."""
    places = {(job["Namespace"], job["Region"]) for job in jobs}
    for namespace, region in sorted(places):
        there = cluster.at(namespace=namespace, region=region)
        yield from stop_jobs(
            there, [job["ID"] for job in jobs if (job["Namespace"], job["Region"]) == (namespace, region)]
        )


def stop_jobs(cluster: Cluster, job_ids: list[str]) -> Iterator[Event]:
    """Stop the jobs at once and wait until each has no living allocation."""
    for job_id in job_ids:
        cluster.nomad.deregister(job_id)
    deadline = time.monotonic() + STOPPED_WITHIN_S
    for job_id in job_ids:
        while any(is_living(stub) for stub in cluster.nomad.allocations(job_id)):
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"job `{job_id}` is stopped, but replicas of it still run after {STOPPED_WITHIN_S:.0f} s",
                    hint=f"`nomad job status {job_id}` shows them; they end with their kill_timeout",
                )
            time.sleep(POLL_S)
        yield JobStopped(job_id=job_id)
