"""What `up` would change: the job in Nomad, the traffic in Consul; and which nodes have room."""

from dataclasses import dataclass
from typing import Any

from nomadserve import entries
from nomadserve.errors import WrongInput
from nomadserve.nomad_api import Job
from nomadserve.operations import fit, job_diff, traffic
from nomadserve.operations.cluster import Cluster
from nomadserve.render import render_job
from nomadserve.spec import Service
from nomadserve.weights import Weights


@dataclass(frozen=True, slots=True)
class Plan:
    """What `up` would do, computed on one view of the cluster and carried out only if that still holds.

    Attributes:
        source: the job as HCL.
        job: the same as Nomad's JSON, with the live count where counts are preserved.
        modify_index: the index of the registered job that all this was computed on; 0 where it is new.
        job_lines: the job's changes for people; empty where it stays as it is.
        replica_lines: how many replicas start, change in place, are replaced.
        replaces_running: replicas that serve now will be replaced.
        entry_changes: the service's own config entries.
        route_change: the shared router's change, if any.
        routes: the service's routes as they shall be.
        weights: the service's weights as they shall be.
        is_named: `NAME.service.consul` is registered at the gateway already, or no gateway runs.
        unplaced: per node why a replica does not fit there; empty where all can be placed.
        warnings: Nomad's own.
    """

    service: Service
    source: str
    job: Job
    modify_index: int
    job_lines: tuple[str, ...]
    replica_lines: tuple[str, ...]
    replaces_running: bool
    entry_changes: tuple[traffic.EntryChange, ...]
    route_change: traffic.EntryChange | None
    routes: tuple[dict[str, Any], ...]
    weights: Weights
    is_named: bool
    unplaced: tuple[fit.Verdict, ...]
    warnings: str

    @property
    def is_empty(self) -> bool:
        """Nothing would change."""
        return not (self.job_lines or self.entry_changes or self.route_change) and self.is_named


def make_plan(cluster: Cluster, service: Service) -> Plan:
    """Compute what `up` would change; writes nothing.

    Raises:
        WrongInput: a name is taken by something that is not this service's.
        NomadRefused: Nomad finds the job wrong.
    """
    current = cluster.nomad.job(service.job_id)
    is_registered = current is not None and not current["Stop"]
    refuse_taken_names(cluster, service, current)
    keeps_count = current is not None and preserves_counts(service)
    source = render_job(service)
    job = cluster.nomad.parse(source)
    if keeps_count:
        assert current is not None
        job["TaskGroups"][0]["Count"] = current["TaskGroups"][0]["Count"]
    planned = cluster.nomad.plan(job)
    found = traffic.current_weights(cluster, service.name)
    weights, splitter = grown(found[0] if found else None, service.version), found[1] if found else None
    routes = entries.routes(service.name, list(weights.by_version), service.request_timeout)
    lines = job_diff.diff_lines(planned["Diff"], before=current if is_registered else None, after=job)
    return Plan(
        service=service,
        source=source,
        job=job,
        modify_index=planned["JobModifyIndex"],
        job_lines=tuple(lines),
        replica_lines=tuple(job_diff.update_lines(planned)) if lines else (),
        replaces_running=any(
            update.get("DestructiveUpdate")
            for update in ((planned.get("Annotations") or {}).get("DesiredTGUpdates") or {}).values()
        ),
        entry_changes=tuple(traffic.reweigh(cluster, service.name, weights, splitter=splitter, verb="up")),
        route_change=traffic.route_change(cluster, service.name, routes),
        routes=tuple(routes),
        weights=weights,
        is_named=is_named(cluster, service.name),
        unplaced=tuple(fit.explain(cluster, job)) if planned.get("FailedTGAllocs") else (),
        warnings=planned.get("Warnings") or "",
    )


def preserves_counts(service: Service) -> bool:
    """Whether the live count is to stay as it is: always, unless the file itself fixes it by `replicas`."""
    return service.scaling is not None or service.replicas is None


def grown(weights: Weights | None, version: str) -> Weights:
    """The weights with `version` among them: the first gets everything, a later one nothing yet."""
    if weights is None:
        return Weights({version: 100})
    if version in weights.by_version:
        return weights
    return Weights({**weights.by_version, version: 0})


def is_named(cluster: Cluster, service: str) -> bool:
    """Whether the gateway's job registers the service's name already; also where no gateway runs at all."""
    gateway = cluster.nomad.job(traffic.GATEWAY_JOB)
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
