from typing import Any

import pytest

from nomadserve.operations.spot import notes_on
from nomadserve.spec import Spot

MARKED: dict[str, Any] = {"Meta": {"nomadserve_spot": "true"}}
OTHER: dict[str, Any] = {"Meta": None}


@pytest.mark.parametrize(
    ("spot", "nodes", "expected"),
    [
        (Spot(prefer=True), [MARKED, OTHER], ""),
        (Spot(only=True), [MARKED], ""),
        (Spot(only=True), [], ""),
        (
            Spot(prefer=True),
            [OTHER],
            "no node is a spot node (`meta.nomadserve_spot` = `true`): `nomad node meta apply",
        ),
        (Spot(only=True, attribute="node.class", value="cheap"), [OTHER], "`nomad node status -verbose NODE` shows"),
        (Spot(avoid=True), [MARKED], "every node is a spot node (`meta.nomadserve_spot` = `true`)"),
        (Spot(prefer=True, on_demand_min=1), [MARKED], "no replica can keep off them"),
    ],
)
def test_a_cluster_whose_nodes_are_all_of_one_kind_is_noted(
    spot: Spot, nodes: list[dict[str, Any]], expected: str
) -> None:
    notes = notes_on(spot, nodes)
    assert bool(notes) == bool(expected)
    assert all(expected in note for note in notes)
