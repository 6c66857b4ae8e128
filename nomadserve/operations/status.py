"""What runs: services, their versions, weights, replicas and health, merged from Nomad and Consul."""

from typing import Any

import msgspec

from nomadserve import entries
from nomadserve.errors import WrongInput
from nomadserve.nomad_api import Job, is_living
from nomadserve.operations import groups
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.follow import replica_state
from nomadserve.operations.waking import is_asleep


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One living or failed allocation."""

    allocation: str
    node: str
    state: str


class VersionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One version.

    state: healthy, degraded, starting, draining (the last replicas finish what they have), asleep (a request wakes it),
        no room, failed, stopped.
    replicas: those that shall run, and those that still drain.
    """

    version: str
    weight: float
    state: str
    replicas_healthy: int
    replicas_wanted: int
    replicas: tuple[ReplicaStatus, ...]


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One service. `address`: its DNS name with the gateway's port; `changes`: who moved its traffic, newest last."""

    service: str
    address: str
    gateways_healthy: int
    versions: tuple[VersionStatus, ...]
    changes: tuple[str, ...]


def services_status(cluster: Cluster, name: str | None = None) -> list[ServiceStatus]:
    """Every service, or the one named.

    Raises:
        WrongInput: there is none of that name.
    """
    names = [name] if name else service_names(cluster)
    found = [service_status(cluster, each) for each in names]
    if name and not found[0].versions:
        others = ", ".join(f"`{each}`" for each in service_names(cluster))
        raise WrongInput(
            f"there is no service `{name}`",
            hint=f"there is {others}" if others else "`nomadserve up service.hcl.j2` deploys one",
        )
    return found


def service_names(cluster: Cluster) -> list[str]:
    """All services that have traffic entries or jobs."""
    split = (entries.owner(entry) for entry in cluster.consul.entries("service-splitter"))
    deployed = ((job.get("Meta") or {}).get("nomadserve_service") for job in cluster.nomad.jobs())
    return sorted({name for name in (*split, *deployed) if name})


def jobs_of(cluster: Cluster, service: str) -> list[Job]:
    """Stubs of the jobs that are versions of the service."""
    return [job for job in cluster.nomad.jobs() if (job.get("Meta") or {}).get("nomadserve_service") == service]


def service_status(cluster: Cluster, service: str) -> ServiceStatus:
    """One service; without versions where there is none of that name."""
    splitter = cluster.consul.entry("service-splitter", service)
    if splitter and entries.owner(splitter) != service:
        splitter = None
    weights = entries.weights_of(splitter).by_version if splitter else {}
    jobs = {job["Meta"]["nomadserve_version"]: job for job in jobs_of(cluster, service)}
    gateways = [instance for instance in cluster.consul.instances(service) if instance.is_passing]
    versions = [*weights, *(version for version in jobs if version not in weights)]
    return ServiceStatus(
        service=service,
        address=f"{service}.service.consul" + (f":{gateways[0].port}" if gateways else ""),
        gateways_healthy=len(gateways),
        versions=tuple(
            version_status(cluster, service, version, weights.get(version, 0), jobs.get(version))
            for version in versions
        ),
        changes=tuple(entries.changes(splitter)),
    )


def version_status(cluster: Cluster, service: str, version: str, weight: float, job: Job | None) -> VersionStatus:
    """One version, whose job may be gone while its weight is still there."""
    job_id = f"{service}-{version}"
    if job:
        cluster = cluster.at(namespace=job["Namespace"], region=job["Region"])
    registered = cluster.nomad.job(job_id) if job else None
    wanted = wanted_replicas(registered)
    healthy = sum(instance.is_passing for instance in cluster.consul.instances(job_id))
    stubs = cluster.nomad.allocations(job_id) if job else []
    replicas = tuple(
        ReplicaStatus(allocation=stub["ID"][:8], node=stub["NodeName"], state=replica_state(stub))
        for stub in stubs
        if stub["DesiredStatus"] == "run" or is_living(stub)
    )
    return VersionStatus(
        version=version,
        weight=weight,
        state=idle_state(registered, stubs)
        or busy_state(cluster, job_id, wanted=wanted, healthy=healthy, replicas=replicas),
        replicas_healthy=healthy,
        replicas_wanted=wanted,
        replicas=replicas,
    )


def idle_state(job: Job | None, allocations: list[dict[str, Any]]) -> str | None:
    """The one word for a version that shall have no replica; None for one that shall.

    One that sleeps takes up to its drain to fall asleep: until then its last replicas may still answer.
    """
    if wanted_replicas(job):
        return None
    if any(is_living(allocation) for allocation in allocations):
        return "draining"
    return "asleep" if is_asleep(job) else "stopped"


def busy_state(cluster: Cluster, job_id: str, *, wanted: int, healthy: int, replicas: tuple[ReplicaStatus, ...]) -> str:
    """The one word for a version that shall have replicas."""
    if healthy >= wanted:
        return "healthy"
    if cluster.nomad.is_blocked(job_id):
        return "no room"
    if healthy:
        return "degraded"
    states = {replica.state for replica in replicas}
    return "failed" if any(state.startswith(("failed", "unhealthy")) for state in states) else "starting"


def wanted_replicas(job: Job | None) -> int:
    """How many replicas a registered job shall have."""
    return groups.total(job) if job and not job["Stop"] else 0
