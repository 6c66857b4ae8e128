"""How the parts of a local cluster are: asked one by one, each answer a word and what is behind it."""

import socket
from collections.abc import Callable
from typing import Literal

import msgspec

from nomadserve.engines.local import api, platform
from nomadserve.engines.local.record import Cluster
from nomadserve.errors import NomadserveError


class Part(msgspec.Struct, frozen=True):
    """One part, and whether it does its work now; services run without those that are not `essential`."""

    name: str
    healthy: bool
    detail: str
    url: str
    essential: bool = True


def consul_has_leader(cluster: Cluster) -> bool:
    """Whether Consul can take writes."""
    return bool(api.consul_leader(cluster))


def nomad_is_ready(cluster: Cluster) -> bool:
    """Whether a node takes jobs, and has seen Consul (jobs with services are not placed before)."""
    return any(
        node["Status"] == "ready"
        and node["SchedulingEligibility"] == "eligible"
        and "consul.version" in node["Attributes"]
        for node in api.nodes(cluster)
    )


def gateway_listens(cluster: Cluster) -> bool:
    """Whether Envoy has its configuration and accepts connections."""
    try:
        with socket.create_connection(("127.0.0.1", cluster.ports.gateway), timeout=2):
            return True
    except OSError:
        return False


def gateway_passes(cluster: Cluster) -> bool:
    """Whether Consul would name this gateway to clients."""
    return platform.passes(cluster, "gateway")


def parts(cluster: Cluster) -> list[Part]:
    """All parts, in the order in which they depend on each other."""
    return [
        _part(
            "consul", consul_has_leader, cluster, cluster.consul_url + "/ui", good="has a leader", bad="has no leader"
        ),
        _part(
            "nomad", nomad_is_ready, cluster, cluster.nomad_url + "/ui", good="node is ready", bad="no node is ready"
        ),
        _part(
            "gateway",
            lambda cluster: gateway_listens(cluster) and gateway_passes(cluster),
            cluster,
            cluster.gateway_url,
            good="listens and passes its check",
            bad="does not listen, or not pass its check",
        ),
        scaling_part(cluster, "prometheus", f"http://127.0.0.1:{cluster.ports.prometheus}"),
        scaling_part(cluster, "autoscaler", f"http://127.0.0.1:{cluster.ports.autoscaler}"),
    ]


def is_up(cluster: Cluster) -> bool:
    """Whether services can be deployed and reached, and what scales them is at least on its way."""
    return all(part.healthy for part in parts(cluster) if part.essential) and all(
        platform.has_job(cluster, part) for part in platform.ENGINES
    )


def scaling_part(cluster: Cluster, part: Literal["prometheus", "autoscaler"], url: str) -> Part:
    """A part that scaling needs."""
    found = _part(
        part,
        lambda cluster: platform.passes(cluster, part),
        cluster,
        url,
        good="passes its check",
        bad="does not pass its check: nothing is scaled meanwhile",
    )
    return msgspec.structs.replace(found, essential=False)


def _part(name: str, is_healthy: Callable[[Cluster], bool], cluster: Cluster, url: str, *, good: str, bad: str) -> Part:
    try:
        healthy = is_healthy(cluster)
    except NomadserveError as error:
        return Part(name, False, error.message, url)
    return Part(name, healthy, good if healthy else bad, url)
