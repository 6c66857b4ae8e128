"""Deploy a version of a service."""

from collections.abc import Generator, Iterator
from dataclasses import replace

from nomadserve import entries
from nomadserve.nomad_api import Job, JobChanged
from nomadserve.operations import ceiling, groups, traffic
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.events import Done, Event, JobRegistered, Note
from nomadserve.operations.follow import follow
from nomadserve.operations.gateways import wait_until_served
from nomadserve.operations.plan import Plan, planned_wakings
from nomadserve.operations.platform import write_entries
from nomadserve.operations.waking import is_asleep, measured_startup_s
from nomadserve.spec import Service

RACES_MAX = 5
CHANGED_BY_NOMAD = {
    "JobModifyIndex",
    "ModifyIndex",
    "Stable",
    "Status",
    "StatusDescription",
    "SubmitTime",
    "Version",
    "VersionTag",
}


def up(cluster: Cluster, plan: Plan, *, is_detached: bool, timeout_s: float) -> Iterator[Event]:
    """Carry a plan out and follow the deployment until healthy.

    Traffic comes first: a version without replicas is passed over by the gateway, and whoever stops waiting after the
    job is registered leaves nothing half done.

    Raises:
        JobChanged, EntryChanged: somebody else wrote since the plan was made; theirs stands.
        BlockedOnCapacity, DeploymentFailed, TimedOut: see `follow`.
    """
    service = plan.service
    yield from write_entries(cluster)
    yield from traffic.write(cluster, list(plan.entry_changes))
    yield from traffic.write_routes(cluster, service.name, list(plan.routes))
    yield from traffic.name_at_gateway(cluster, service.name, is_wanted=True)
    yield from give_way(cluster, plan)
    if not is_detached:
        plan = yield from cross_over(cluster, plan, timeout_s=timeout_s)
    evaluation_id = register(cluster, plan) if plan.job_lines else None
    if evaluation_id:
        yield JobRegistered(job_id=service.job_id)
        if service.built:
            names = ", ".join(f"`{model.name}`" for model in service.built)
            yield Note(text=f"TensorRT builds {names} on every node that keeps no plan of it yet: that takes minutes")
    for change in ceiling.apply(cluster, service.name, lambda _: plan.shares):
        yield Note(text=str(change))
    if is_detached:
        yield Done(
            text=f"{service.job_id} is on its way", hint=f"`nomadserve status {service.name}` shows how it fares"
        )
        return
    yield from follow(cluster, plan.job, evaluation_id=evaluation_id, timeout_s=timeout_s)
    yield from note_startup(cluster, service)
    # Asking the gateway is a request, too: nobody is woken where no traffic changed.
    may_ask = plan.changes_traffic or not is_asleep(cluster.nomad.job(service.job_id))
    if not plan.is_empty and may_ask and traffic.has_gateway(cluster):
        yield from wait_until_served(cluster, service.name)
    yield finished(cluster, plan)


def note_startup(cluster: Cluster, service: Service) -> Iterator[Event]:
    """Tell the gateway how long a version that may sleep takes to start, as its newest replica just did.

    Raises:
        EntryChanged: somebody else moved the traffic meanwhile; the next `up` notes it.
    """
    found = traffic.current_weights(cluster, service.name)
    if found is None or service.scaling is None or not service.scaling.sleeps:
        return
    weights, splitter = found
    startup_s = measured_startup_s(cluster, service.job_id)
    wakings = planned_wakings(cluster, service, weights, startup_s=startup_s)
    changes = traffic.reweigh(cluster, service.name, weights, splitter=splitter, verb="up", wakings=wakings)
    if not changes:
        return
    yield Note(text=f"{service.job_id} took {startup_s:.0f} s to start: clients that wait for it are told so")
    yield from traffic.write(cluster, changes)
    router = cluster.consul.entry("service-router", entries.ROUTER)
    timeouts_s = entries.timeouts_of(router, service.name)
    yield from traffic.write_routes(cluster, service.name, entries.routes(service.name, timeouts_s, wakings))


def give_way(cluster: Cluster, plan: Plan) -> Iterator[Event]:
    """Lower the shares of the other versions, where `max_total` asks for it, before this one may take its own.

    Raises:
        BlockedOnCapacity: what was lowered may still come back.
    """
    lowered = {change.version: change.after for change in plan.share_changes if change.after < change.before}
    for change in ceiling.apply(cluster, plan.service.name, lambda _: lowered) if lowered else ():
        yield Note(text=str(change))
    if plan.job_lines:
        ceiling.wait_for_room(cluster, plan.service.name, plan.service.version, plan.job)


def cross_over(cluster: Cluster, plan: Plan, *, timeout_s: float) -> Generator[Event, None, Plan]:
    """Where replicas move to another group of the job, start their successors first; the plan for what is then left.

    Raises: as `follow`.
    """
    job = groups.bridge(plan.before, plan.job) if plan.before else None
    if job is None:
        return plan
    yield Note(text="replicas move from one group to the other: their successors start first")
    evaluation = cluster.nomad.register(job, source=plan.source, modify_index=plan.modify_index, preserve_counts=False)
    yield from follow(cluster, job, evaluation_id=evaluation, timeout_s=timeout_s)
    current = cluster.nomad.job(job["ID"])
    if current is None:
        raise JobChanged(f"`{job['ID']}` was stopped by somebody else meanwhile")
    return replace(plan, before=current, modify_index=current["JobModifyIndex"], preserves_count=False)


def register(cluster: Cluster, plan: Plan) -> str:
    """Register the plan's job and answer the evaluation's id.

    The autoscaler may have moved the count since the plan was made: that is no change that anybody needs to look at.

    Raises:
        JobChanged: somebody else changed more than the count.
    """
    index, preserves = plan.modify_index, plan.preserves_count
    for _ in range(RACES_MAX):
        try:
            return cluster.nomad.register(plan.job, source=plan.source, modify_index=index, preserve_counts=preserves)
        except JobChanged:
            current = cluster.nomad.job(plan.job["ID"])
            if current is None or plan.before is None or without_counts(current) != without_counts(plan.before):
                raise
            index = current["JobModifyIndex"]
            preserves = preserves and is_within(current, plan.job)
    raise JobChanged(f"job `{plan.job['ID']}` is scaled again and again", hint="repeat the command")


def is_within(current: Job, wanted: Job) -> bool:
    """Whether the live count lies within the bounds of the job that is to be registered."""
    scaling = wanted["TaskGroups"][0].get("Scaling")
    live: int = current["TaskGroups"][0]["Count"]
    return not scaling or bool(scaling["Min"] <= live <= scaling["Max"])


def without_counts(job: Job) -> Job:
    """A registered job without its counts, and without what Nomad itself changes in it."""
    groups = [
        {key: value for key, value in group.items() if key not in {"Count", "Scaling"}}
        | {"Policy": (group.get("Scaling") or {}).get("Policy")}
        for group in job["TaskGroups"]
    ]
    return {key: value for key, value in job.items() if key not in CHANGED_BY_NOMAD} | {"TaskGroups": groups}


def finished(cluster: Cluster, plan: Plan) -> Done:
    """The result, and what to do next."""
    service = plan.service
    sleeps = is_asleep(cluster.nomad.job(service.job_id))
    state = "asleep (the next request starts it)" if sleeps else "healthy"
    if plan.is_empty:
        return Done(text=f"nothing to change: {service.job_id} is as the file says, and {state}")
    found = traffic.current_weights(cluster, service.name)
    weights = found[0].by_version if found else {}
    if weights.get(service.version):
        return Done(
            text=f"{service.job_id} is {state} and has {weights[service.version]} % of the traffic of {service.name}",
            hint=f"`nomadserve call {service.name} DATA` sends it a request",
        )
    others = [version for version, weight in weights.items() if weight]
    example = f"`nomadserve split {service.name} {others[0]}=90 {service.version}=10`" if others else ""
    return Done(
        text=f"{service.job_id} is {state} and has no traffic yet", hint=f"{example} gives it a tenth" if others else ""
    )
