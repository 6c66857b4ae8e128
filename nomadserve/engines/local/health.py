"""How the parts of a local cluster are: asked one by one, each answer a word and what is behind it."""

import socket
from collections.abc import Callable

import msgspec

from nomadserve.engines.local import api, gateway
from nomadserve.engines.local.record import Cluster
from nomadserve.errors import NomadserveError


class Part(msgspec.Struct, frozen=True):
    """One part, and whether it does its work now."""

    name: str
    healthy: bool
    detail: str
    url: str


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
    return cluster.ports.gateway in api.passing_ports(cluster, gateway.SERVICE)


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
    ]


def _part(name: str, is_healthy: Callable[[Cluster], bool], cluster: Cluster, url: str, *, good: str, bad: str) -> Part:
    try:
        healthy = is_healthy(cluster)
    except NomadserveError as error:
        return Part(name, False, error.message, url)
    return Part(name, healthy, good if healthy else bad, url)
