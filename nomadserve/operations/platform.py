"""Run what all services share on an existing cluster: the gateway, Prometheus, the Autoscaler."""

import time
from collections.abc import Iterator, Sequence

import msgspec

from nomadserve import entries, platform, rights
from nomadserve.errors import BlockedOnCapacity, TimedOut, WrongInput
from nomadserve.nomad_api import DEFAULT_NAMESPACE
from nomadserve.operations import fit, job_diff
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.down import stop_jobs
from nomadserve.operations.events import Done, EntryWritten, Event, JobRegistered, Note
from nomadserve.operations.follow import last_log_lines, no_room_text
from nomadserve.operations.measured import prometheus_of
from nomadserve.platform import JOBS, SERVICES, Part, Settings
from nomadserve.prometheus_api import PrometheusUnreachable

POLL_S = 0.3


class PartStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One part. `state`: healthy, failing, starting, absent."""

    part: str
    job: str
    state: str
    addresses: tuple[str, ...]
    detail: str


def platform_up(cluster: Cluster, settings: Settings, parts: Sequence[Part], *, timeout_s: float) -> Iterator[Event]:
    """Register what is missing or differs, and wait until each part is healthy; a second time changes nothing.

    Raises:
        BlockedOnCapacity: no node has room for a part.
        TimedOut: a part does not get healthy.
    """
    cluster = at_home(cluster)
    if "gateway" in parts:
        yield from write_entries(cluster)
    registered = []
    for part in parts:
        if register(cluster, part, settings):
            registered.append(part)
            yield JobRegistered(job_id=JOBS[part])
    for part in parts:
        yield from wait_until_healthy(cluster, part, timeout_s=timeout_s)
    yield Done(text="the platform is up" if registered else "nothing to change: the platform is as wanted, and healthy")


def at_home(cluster: Cluster) -> Cluster:
    """The platform's jobs are in Nomad's default namespace, wherever the services are."""
    return cluster.at(namespace=DEFAULT_NAMESPACE, region=None)


def write_entries(cluster: Cluster) -> Iterator[Event]:
    """Create the entries that the gateway rests on; those that are there hold the routes of services: they stay."""
    for entry in platform.ENTRIES:
        if cluster.consul.entry(entry["Kind"], entry["Name"]) is None:
            cluster.consul.put(entry, index=0)
            yield EntryWritten(action="create", kind=entry["Kind"], name=entry["Name"])


def register(cluster: Cluster, part: Part, settings: Settings) -> bool:
    """Bring the part's job to what is wanted; False where it is already."""
    source = platform.render_part(part, settings, routed=routed_services(cluster))
    job = cluster.nomad.parse(source)
    current = cluster.nomad.job(JOBS[part])
    is_registered = current is not None and not current["Stop"]
    planned = cluster.nomad.plan(job)
    if is_registered and not job_diff.diff_lines(planned["Diff"], before=current, after=job):
        return False
    if not is_registered:
        platform.wait_until_ended(lambda: cluster.nomad.allocations(job["ID"]))
    cluster.nomad.register(job, source=source, modify_index=planned["JobModifyIndex"], preserve_counts=False)
    return True


def routed_services(cluster: Cluster) -> list[str]:
    """The services that are reached through the gateway, wherever that runs, or will."""
    return entries.routed_services(cluster.consul.entry("service-router", entries.ROUTER))


def wait_until_healthy(cluster: Cluster, part: Part, *, timeout_s: float) -> Iterator[Event]:
    """Wait for the part's check in Consul."""
    deadline = time.monotonic() + timeout_s
    while not any(instance.is_passing for instance in cluster.consul.instances(SERVICES[part])):
        job = cluster.nomad.job(JOBS[part])
        if job is not None and part != "gateway" and cluster.nomad.is_blocked(job["ID"]):
            verdicts = fit.explain(cluster, job)
            raise BlockedOnCapacity(
                no_room_text(job["ID"], verdicts, placed=0, wanted=1),
                hint="the job stays registered and starts as soon as a node has room",
            )
        if time.monotonic() > deadline:
            raise not_healthy(cluster, part, f"`{JOBS[part]}` is not healthy after {timeout_s:.0f} s")
        time.sleep(POLL_S)
    yield Note(text=f"{part} is healthy")


def not_healthy(cluster: Cluster, part: Part, message: str) -> TimedOut:
    """The wait is over: with what the part said last."""
    stubs = [stub for stub in cluster.nomad.allocations(JOBS[part]) if stub["DesiredStatus"] == "run"]
    log = last_log_lines(cluster, stubs[-1]) if stubs else ""
    if "ermission denied" in log or "derive Consul token" in log:
        hint = f"Consul does not permit it: {rights.DOCUMENT} says what each part needs there"
    else:
        hint = f"`nomad job status {JOBS[part]}` says why, or its logs: `nomad alloc logs -job {JOBS[part]}`"
    return TimedOut(f"{message}; the last it said:\n{log}" if log else message, hint=hint)


def platform_status(cluster: Cluster) -> list[PartStatus]:
    """How every part is."""
    routed_services(cluster)  # without a token, Consul refuses this one in words, where health just comes empty
    return [part_status(at_home(cluster), part) for part in platform.PARTS]


def part_status(cluster: Cluster, part: Part) -> PartStatus:
    """How one part is: what Consul's checks say, and what Nomad runs."""
    job = cluster.nomad.job(JOBS[part])
    instances = cluster.consul.instances(SERVICES[part])
    healthy = sum(instance.is_passing for instance in instances)
    state, detail = "healthy", f"{healthy} of {len(instances)} pass their check"
    if job is None or job["Stop"]:
        state, detail = ("healthy" if healthy else "absent"), "not run by nomadserve"
    elif not instances:
        state, detail = "starting", "its job is registered, nothing of it runs yet"
    elif healthy < len(instances):
        state = "failing"
    if part == "prometheus" and healthy:
        detail += targets_text(cluster)
    addresses = tuple(f"{instance.address}:{instance.port}" for instance in instances)
    return PartStatus(part=part, job=JOBS[part], state=state, addresses=addresses, detail=detail)


def targets_text(cluster: Cluster) -> str:
    """What Prometheus itself says of what it measures."""
    prometheus = prometheus_of(cluster)
    if prometheus is None:
        return ""
    try:
        states = prometheus.values("up")
    except PrometheusUnreachable:
        return ", but does not answer queries"
    return f", measures {sum(state == 1 for state in states)} of {len(states)} targets"


def platform_down(cluster: Cluster, parts: Sequence[Part], *, is_forced: bool) -> Iterator[Event]:
    """Stop the parts, the last first.

    Raises:
        WrongInput: services are routed through the gateway (`is_forced` stops it anyway).
    """
    cluster = at_home(cluster)
    jobs = {part: job for part in parts if (job := cluster.nomad.job(JOBS[part])) is not None}
    routed = routed_services(cluster) if "gateway" in jobs else []
    if routed and not is_forced:
        raise WrongInput(
            f"the gateway routes to {', '.join(f'`{name}`' for name in routed)}: without it they can't be reached",
            hint=f"take them away first (`nomadserve down {routed[0]}`), or add `--force`",
        )
    yield from stop_jobs(cluster, [JOBS[part] for part in reversed(platform.PARTS) if part in jobs])
    names = ", ".join(jobs)
    yield Done(text=f"stopped: {names}" if jobs else "nothing to do: none of that runs")
