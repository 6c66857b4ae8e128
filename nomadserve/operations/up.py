"""Deploy a version of a service."""

from collections.abc import Iterator

from nomadserve.operations import traffic
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.events import Done, Event, JobRegistered
from nomadserve.operations.follow import follow
from nomadserve.operations.gateways import wait_until_served
from nomadserve.operations.plan import Plan, preserves_counts


def up(cluster: Cluster, plan: Plan, *, is_detached: bool, timeout_s: float) -> Iterator[Event]:
    """Carry a plan out and follow the deployment until healthy.

    Traffic comes first: a version without replicas is passed over by the gateway, and whoever stops waiting after the
    job is registered leaves nothing half done.

    Raises:
        JobChanged, EntryChanged: somebody else wrote since the plan was made; theirs stands.
        BlockedOnCapacity, DeploymentFailed, TimedOut: see `follow`.
    """
    service = plan.service
    yield from traffic.write(cluster, list(plan.entry_changes))
    if plan.route_change:
        yield from traffic.write_routes(cluster, service.name, list(plan.routes))
    yield from traffic.name_at_gateway(cluster, service.name, is_wanted=True)
    evaluation_id = None
    if plan.job_lines:
        evaluation_id = cluster.nomad.register(
            plan.job,
            source=plan.source,
            modify_index=plan.modify_index,
            preserve_counts=plan.modify_index > 0 and preserves_counts(service),
        )
        yield JobRegistered(job_id=service.job_id)
    if is_detached:
        yield Done(
            text=f"{service.job_id} is on its way", hint=f"`nomadserve status {service.name}` shows how it fares"
        )
        return
    yield from follow(cluster, plan.job, evaluation_id=evaluation_id, timeout_s=timeout_s)
    if not plan.is_empty and cluster.nomad.job(traffic.GATEWAY_JOB):
        yield from wait_until_served(cluster, service.name, plan.weights)
    yield finished(plan)


def finished(plan: Plan) -> Done:
    """The result, and what to do next."""
    service, weights = plan.service, plan.weights
    if plan.is_empty:
        return Done(text=f"nothing to change: {service.job_id} is as the file says, and healthy")
    share = weights.by_version[service.version]
    if share:
        return Done(
            text=f"{service.job_id} is healthy and has {share} % of the traffic of {service.name}",
            hint=f"`nomadserve call {service.name}` sends it a request",
        )
    others = [version for version in weights.by_version if weights.by_version[version]]
    example = f"`nomadserve split {service.name} {others[0]}=90 {service.version}=10`"
    return Done(text=f"{service.job_id} is healthy and has no traffic yet", hint=f"{example} gives it a tenth")
