"""What `up` would change: the job in Nomad, the traffic in Consul; and which nodes have room."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nomadserve import entries
from nomadserve.errors import WrongInput
from nomadserve.nomad_api import Job
from nomadserve.operations import ceiling, fit, groups, job_diff, traffic
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.policies import check_policy
from nomadserve.operations.spot import spot_notes
from nomadserve.operations.waking import is_asleep, wakings_of, wanted_waking
from nomadserve.render import render_job
from nomadserve.spec import Service
from nomadserve.weights import Weights

ATTEMPT = "nomadserve_attempt"


@dataclass(frozen=True, slots=True)
class Plan:
    """What `up` would do, computed on one view of the cluster and carried out only if that still holds.

    Attributes:
        source: the job as HCL.
        job: the same as Nomad's JSON, with the live count where that is to stay.
        before: the job as it is registered now; None where it is new, or stopped.
        modify_index: the index of the registered job that all this was computed on; 0 where it is new.
        preserves_count: the live count stays, even if it changes before the job is registered.
        job_lines: the job's changes for people; empty where it stays as it is.
        replica_lines: how many replicas start, change in place, are replaced.
        replaces_running: replicas that serve now will be replaced.
        entry_changes: the service's own config entries.
        routes: the service's routes at the gateway as they shall be.
        changes_routes: they are not so yet.
        is_named: `NAME.service.consul` is registered at the gateway already, or no gateway runs.
        has_room: every replica can be placed now.
        unplaced: per node why a replica does not fit there; empty where all can be placed.
        warnings: Nomad's own.
        shares: by version, the most replicas that it may have under `max_total`.
        share_changes: what changes of that for the other versions.
        notes: what should be known about the scaling policy, the ceiling, and spot nodes.
    """

    service: Service
    source: str
    job: Job
    before: Job | None
    modify_index: int
    preserves_count: bool
    job_lines: tuple[str, ...]
    replica_lines: tuple[str, ...]
    replaces_running: bool
    entry_changes: tuple[traffic.EntryChange, ...]
    routes: tuple[dict[str, Any], ...]
    changes_routes: bool
    is_named: bool
    has_room: bool
    unplaced: tuple[fit.Verdict, ...]
    warnings: str
    shares: Mapping[str, int]
    share_changes: tuple[ceiling.Change, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Nothing would change."""
        return not self.job_lines and not self.share_changes and not self.changes_traffic

    @property
    def changes_traffic(self) -> bool:
        """Something of it would change in Consul or at the gateway."""
        return bool(self.entry_changes or self.changes_routes or not self.is_named)


def make_plan(cluster: Cluster, service: Service) -> Plan:
    """Compute what `up` would change; writes nothing.

    Raises:
        WrongInput: a name is taken by something that is not this service's.
        NomadRefused: Nomad finds the job wrong.
        PolicyRefused: its scaling policy can't work.
    """
    current = cluster.nomad.job(service.job_id)
    refuse_taken_names(cluster, service, current)
    if current is not None and current["Stop"]:
        current = None
    source = render_job(service)
    job = cluster.nomad.parse(source)
    count = live_count(service, current)
    if count is not None:
        groups.set_total(job, count)
    found = traffic.current_weights(cluster, service.name)
    weights, splitter = grown(found[0] if found else None, service.version), found[1] if found else None
    versions = ceiling.running(cluster, service.name)
    shares = ceiling.shares_with(service.name, service.version, job, versions, weights.by_version)
    ceiling.set_share(job, shares[service.version])
    lines = keep_attempt(cluster, job, current)
    planned = cluster.nomad.plan(job)
    if is_asleep(current) and (lines or job_diff.changes_tasks(planned["Diff"])):
        groups.set_total(job, 1)  # what changed has to show that it gets healthy
        planned = cluster.nomad.plan(job)
    lines = [*job_diff.diff_lines(planned["Diff"], before=current, after=job), *lines]
    router = cluster.consul.entry("service-router", entries.ROUTER)
    wakings = planned_wakings(cluster, service, weights)
    routes = _planned_routes(service, weights, router, wakings)
    return Plan(
        service=service,
        source=source,
        job=job,
        before=current,
        modify_index=planned["JobModifyIndex"],
        preserves_count=current is not None and count is not None and groups.counts(job) == groups.counts(current),
        job_lines=tuple(lines),
        replica_lines=tuple(job_diff.update_lines(planned)) if lines else (),
        replaces_running=_replaces_running(planned),
        entry_changes=tuple(
            traffic.reweigh(cluster, service.name, weights, splitter=splitter, verb="up", wakings=wakings)
        ),
        routes=tuple(routes),
        changes_routes=not entries.is_same(routes, entries.own_routes(router, service.name)),
        is_named=is_named(cluster, service.name),
        has_room=not planned.get("FailedTGAllocs"),
        unplaced=tuple(fit.explain(cluster, job, planned["FailedTGAllocs"])) if planned.get("FailedTGAllocs") else (),
        warnings=planned.get("Warnings") or "",
        shares=shares,
        share_changes=tuple(ceiling.changes([each for each in versions if each.name != service.version], shares)),
        notes=(
            *check_policy(cluster, service, job),
            *ceiling.lower_elsewhere(service.version, job, versions),
            *spot_notes(cluster, service),
        ),
    )


def _planned_routes(
    service: Service, weights: Weights, router: entries.Entry | None, wakings: Mapping[str, entries.Waking]
) -> list[entries.Entry]:
    """The service's routes: this version's timeout by its file, the others' as they are."""
    timeouts_s = entries.timeouts_of(router, service.name)
    timeouts_s = {version: timeouts_s.get(version, 0.0) for version in weights.by_version}
    return entries.routes(service.name, timeouts_s | {service.version: service.request_timeout}, wakings)


def _replaces_running(planned: dict[str, Any]) -> bool:
    updates = (planned.get("Annotations") or {}).get("DesiredTGUpdates") or {}
    return any(update.get("DestructiveUpdate") for update in updates.values())


def planned_wakings(
    cluster: Cluster, service: Service, weights: Weights, *, startup_s: float | None = None
) -> dict[str, entries.Waking]:
    """How each version that may sleep comes back: this one by its file, the others as they are.

    startup_s: of this version, as just measured.
    """
    wakings = wakings_of(cluster, service.name, weights.by_version)
    own = wanted_waking(service, wakings.pop(service.version, None), startup_s=startup_s)
    return wakings | ({service.version: own} if own else {})


def live_count(service: Service, current: Job | None) -> int | None:
    """The count that runs now, where it is to stay: always, unless the file itself fixes it by `replicas`.

    Bounds of `scaling` that the file has moved move the count with them: Nomad refuses a job outside of its own.
    """
    if current is None or service.replicas is not None:
        return None
    live = groups.total(current)
    return min(max(live, service.scaling.min), service.scaling.max) if service.scaling else live


def keep_attempt(cluster: Cluster, job: Job, current: Job | None) -> list[str]:
    """Have Nomad try again what failed although the file is right: a line for the plan, or none.

    A job that is registered again unchanged does not start a deployment; a new value in its group's `Meta` does.
    """
    meta = (current["TaskGroups"][0].get("Meta") or {}) if current else {}
    attempt = meta.get(ATTEMPT)
    lines = []
    deployment = cluster.nomad.latest_deployment(job["ID"]) if current else None
    if current and deployment and deployment["Status"] == "failed" and deployment["JobVersion"] == current["Version"]:
        attempt = str(current["JobModifyIndex"])
        lines = ["~ the last deployment of this version failed: it is tried again"]
    if attempt:
        for group in job["TaskGroups"]:
            group["Meta"] = {ATTEMPT: attempt}
    return lines


def grown(weights: Weights | None, version: str) -> Weights:
    """The weights with `version` among them: the first gets everything, a later one nothing yet."""
    if weights is None:
        return Weights({version: 100})
    if version in weights.by_version:
        return weights
    return Weights({**weights.by_version, version: 0})


def is_named(cluster: Cluster, service: str) -> bool:
    """Whether the gateway's job registers the service's name already; also where no gateway runs at all."""
    gateway = traffic.platform_nomad(cluster).job(traffic.GATEWAY_JOB)
    return gateway is None or gateway["Stop"] or traffic.has_name(gateway, service)


def refuse_taken_names(cluster: Cluster, service: Service, job: Job | None) -> None:
    """Never take over what belongs to something else: `a-b` of `v`, or `a` of `b-v`, would both be `a-b-v`."""
    if job is not None and (job.get("Meta") or {}).get("nomadserve_service") != service.name:
        owner = (job.get("Meta") or {}).get("nomadserve_service")
        raise WrongInput(
            f"job `{service.job_id}` exists already, and belongs to "
            + (f"service `{owner}`" if owner else "something that nomadserve did not deploy"),
            hint="choose another service name or version",
        )
    for stub in cluster.nomad.jobs():
        if stub["ID"] == service.job_id and stub["Namespace"] != cluster.nomad.namespace:
            raise WrongInput(
                f"`{service.job_id}` is already deployed in namespace `{stub['Namespace']}`",
                hint="Consul's names are shared by all namespaces: choose another service name or version",
            )
    for entry in cluster.consul.entries("service-splitter"):
        targets = {split.get("Service") for split in entry["Splits"]}
        if entry["Name"] != service.name and service.name in targets:
            raise WrongInput(
                f"`{service.name}` is already the Consul name of a version of service `{entry['Name']}`",
                hint="choose another service name",
            )
        if entry["Name"] == service.job_id:
            raise WrongInput(
                f"`{service.job_id}`, the Consul name of this version, is already a service of its own",
                hint="choose another service name or version",
            )
    refuse_registered_names(cluster, service)


def refuse_registered_names(cluster: Cluster, service: Service) -> None:
    """No name that something else is already found by, such as `consul` or `nomad`.

    A routed service's own name stands for the gateways, a version's for its replicas, which say whose they are.
    """
    gateways = {gateway.authority for gateway in cluster.consul.instances(entries.ROUTER)}
    for name in (service.name, service.job_id):
        for found in cluster.consul.instances(name):
            if found.authority not in gateways and found.meta.get("service") != service.name:
                raise WrongInput(
                    f"`{name}.service.consul` already names something else, at {found.authority}",
                    hint="choose another service name or version",
                )
