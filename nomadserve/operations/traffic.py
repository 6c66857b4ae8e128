"""Bring a service's config entries in Consul, and its name in DNS, to what is wanted; and take them away again."""

import datetime
import getpass
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nomadserve import entries
from nomadserve.consul_api import Entry
from nomadserve.errors import WrongInput
from nomadserve.nomad_api import DEFAULT_NAMESPACE, JobChanged, NomadApi
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.events import EntryWritten, Event, Note
from nomadserve.operations.waking import wakings_of
from nomadserve.platform import JOBS
from nomadserve.weights import Weights

GATEWAY_JOB = JOBS["gateway"]
# The gateway's job is shared by all services: a lost race is read again and repeated.
RACES_MAX = 10


@dataclass(frozen=True, slots=True)
class EntryChange:
    """One config entry before and after. Not both are None."""

    kind: str
    name: str
    before: Entry | None
    after: Entry | None

    @property
    def action(self) -> str:
        """`create`, `update` or `delete`."""
        if self.before is None:
            return "create"
        return "delete" if self.after is None else "update"


def wanted_changes(cluster: Cluster, wanted: list[Entry]) -> list[EntryChange]:
    """What must be written so that Consul holds `wanted`, in its order; nothing where it does already.

    Raises:
        WrongInput: somebody else has an entry of that name; it is never overwritten.
    """
    changes = []
    for after in wanted:
        before = cluster.consul.entry(after["Kind"], after["Name"])
        if before is not None and entries.owner(before) != entries.owner(after):
            raise WrongInput(
                f"Consul has a {after['Kind']} `{after['Name']}` already, and it is not nomadserve's",
                hint="choose another service name or version; nothing of it was changed",
            )
        if before is None or not entries.is_same(after, before):
            changes.append(EntryChange(after["Kind"], after["Name"], before, after))
    return changes


def own_entries(cluster: Cluster, service: str) -> list[Entry]:
    """Every entry that was made for the service, also by an `up` or `down` that was cut short; in order of deletion."""
    kinds = ("service-splitter", "service-resolver", "service-defaults")
    return [entry for kind in kinds for entry in cluster.consul.entries(kind) if entries.owner(entry) == service]


def remove(cluster: Cluster, unwanted: list[Entry]) -> Iterator[Event]:
    """Delete the entries, each by compare-and-set, in their order."""
    return write(cluster, [EntryChange(entry["Kind"], entry["Name"], entry, None) for entry in unwanted])


def write(cluster: Cluster, changes: list[EntryChange]) -> Iterator[Event]:
    """Carry the changes out, each by compare-and-set against what was read when they were computed."""
    for change in changes:
        index = change.before["ModifyIndex"] if change.before else 0
        if change.after is None:
            cluster.consul.delete(change.kind, change.name, index=index)
        else:
            cluster.consul.put(change.after, index=index)
        yield EntryWritten(action=change.action, kind=change.kind, name=change.name)


def current_weights(cluster: Cluster, service: str) -> tuple[Weights, Entry] | None:
    """The service's weights and the splitter that holds them, or None where it has no traffic entries."""
    entry = cluster.consul.entry("service-splitter", service)
    return (entries.weights_of(entry), entry) if entry else None


def reweigh(
    cluster: Cluster,
    service: str,
    weights: Weights,
    *,
    splitter: Entry | None,
    verb: str,
    wakings: Mapping[str, entries.Waking] | None = None,
) -> list[EntryChange]:
    """The changes that bring a service to `weights`, with a line of history; none where it is there already.

    splitter: the entry that the decision was made on; a newer one makes the write fail, never be lost.
    wakings: of the versions that may sleep; as they are written now where not given.
    """
    if wakings is None:
        wakings = wakings_of(cluster, service, weights.by_version)
    meta: Mapping[str, str] = (splitter or {}).get("Meta") or {}
    before = entries.weights_of(splitter) if splitter else None
    if before != weights:
        meta = entries.with_change(meta, history_line(verb, before, weights))
    changes = wanted_changes(cluster, entries.traffic_entries(service, weights, meta, wakings))
    # The splitter was read once already: what was decided on then is what must not have changed since.
    return [
        EntryChange(change.kind, change.name, splitter, change.after) if change.kind == "service-splitter" else change
        for change in changes
    ]


def history_line(verb: str, before: Weights | None, after: Weights) -> str:
    """`2026-11-21T14:10:00Z ann@build-7 split: v1=100 → v1=90 v2=10`."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{now} {user_name()}@{socket.gethostname()} {verb}: {before or 'nothing'} → {after}"


def user_name() -> str:
    """Who we are; in a container, a user id may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def write_routes(cluster: Cluster, service: str, routes: list[dict[str, Any]]) -> Iterator[Event]:
    """Give the service exactly `routes` at the gateway, whatever other services write meanwhile."""
    router = cluster.consul.entry("service-router", entries.ROUTER)
    if entries.is_same(routes, entries.own_routes(router, service)):
        return
    cluster.consul.change("service-router", entries.ROUTER, lambda router: entries.with_routes(router, service, routes))
    yield EntryWritten(action="update", kind="service-router", name=f"{entries.ROUTER} ({service})")


def name_at_gateway(cluster: Cluster, service: str, *, is_wanted: bool) -> Iterator[Event]:
    """Make `service.service.consul` name the healthy gateways, or nothing.

    The gateway's job carries one Nomad service per routed service; changing them moves no allocation.
    """
    nomad = platform_nomad(cluster)
    for _ in range(RACES_MAX):
        job = nomad.job(GATEWAY_JOB)
        if job is None or job["Stop"]:
            if is_wanted:
                yield Note(text=f"no gateway runs here: `{service}.service.consul` will resolve once one does")
            return
        if has_name(job, service) == is_wanted:
            return
        changed = with_name(job, service) if is_wanted else without_name(job, service)
        try:
            nomad.register(changed, source="", modify_index=job["JobModifyIndex"], preserve_counts=True)
        except JobChanged:
            continue
        yield EntryWritten(action="create" if is_wanted else "delete", kind="name", name=f"{service}.service.consul")
        return


def platform_nomad(cluster: Cluster) -> NomadApi:
    """Where the gateway's job is, wherever the service's is."""
    return cluster.nomad.at(namespace=DEFAULT_NAMESPACE)


def has_gateway(cluster: Cluster) -> bool:
    """Whether a gateway's job is registered."""
    job = platform_nomad(cluster).job(GATEWAY_JOB)
    return job is not None and not job["Stop"]


def has_name(gateway_job: dict[str, Any], service: str) -> bool:
    """Whether the gateway's job registers the service's name."""
    return any(registered["Name"] == service for registered in gateway_job["TaskGroups"][0]["Services"])


def with_name(gateway_job: dict[str, Any], service: str) -> dict[str, Any]:
    """The gateway's job with one more name for its port: a copy of the gateway's own service block."""
    own = next(block for block in gateway_job["TaskGroups"][0]["Services"] if block["Name"] == entries.ROUTER)
    return with_services(gateway_job, [*gateway_job["TaskGroups"][0]["Services"], own | {"Name": service}])


def without_name(gateway_job: dict[str, Any], service: str) -> dict[str, Any]:
    """The gateway's job without that name."""
    services = gateway_job["TaskGroups"][0]["Services"]
    return with_services(gateway_job, [block for block in services if block["Name"] != service])


def with_services(gateway_job: dict[str, Any], services: list[dict[str, Any]]) -> dict[str, Any]:
    """The gateway's job with other service blocks, all else as it is."""
    group = gateway_job["TaskGroups"][0] | {"Services": services}
    return gateway_job | {"TaskGroups": [group, *gateway_job["TaskGroups"][1:]]}
