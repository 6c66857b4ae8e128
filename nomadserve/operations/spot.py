"""Whether the nodes are what a service's `spot` block takes them for."""

from collections.abc import Sequence

from nomadserve.errors import WrongInput
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.fit import Node, node_attribute
from nomadserve.spec import Service, Spot


def spot_notes(cluster: Cluster, service: Service) -> list[str]:
    """A line where no node that could take the service is a spot node, or where each is; none without a `spot` block.

    Either is most likely a slip: nodes that were not marked, or another attribute than the one meant.
    """
    if service.spot is None:
        return []
    try:
        nodes = cluster.nomad.nodes()
    except WrongInput:  # an ACL token without the right to read nodes
        return []
    pool = service.node_pool or "default"
    ready = [node for node in nodes if node["Status"] == "ready" and pool in {node["NodePool"], "all"}]
    return notes_on(service.spot, ready)


def notes_on(spot: Spot, nodes: Sequence[Node]) -> list[str]:
    """The same for known nodes, as Nomad's JSON has them."""
    where = f"`{spot.attribute}` = `{spot.value}`"
    are_spot = {node_attribute(spot.attribute, node) == spot.value for node in nodes}
    if are_spot == {False}:
        return [f"no node is a spot node ({where}): {way_to_mark(spot)}"]
    if are_spot == {True} and (spot.on_demand_min or spot.avoid):
        return [f"every node is a spot node ({where}): no replica can keep off them"]
    return []


def way_to_mark(spot: Spot) -> str:
    """What makes a node a spot node."""
    kind, _, key = spot.attribute.partition(".")
    if kind == "meta":
        return f"`nomad node meta apply -node-id NODE {key}={spot.value}` marks one, or name another `attribute`"
    return "`nomad node status -verbose NODE` shows what it is known by"
