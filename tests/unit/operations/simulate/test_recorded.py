"""The simulation against what the real autoscaler did under the same traffic.

The recordings were made on a local cluster by `tests/integration/record_scaling.py`: Nomad 1.11.1, Autoscaler 0.5.0,
Prometheus 2.42, real load through the gateway.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from nomadserve.language import load_service
from nomadserve.operations.simulate import Result, simulate
from nomadserve.operations.simulate.result import Assumptions
from nomadserve.operations.simulate.trace import A_MONDAY, Trace

RECORDINGS = Path(__file__).parent / "recordings"
EVALUATION_S = 5.0

# From Nomad's records of the same runs: a replica ran half a second after the decision, and was healthy to Consul
# two seconds later, which is when the gateway sends to it.
PLACEMENT_S, STARTUP_S = 0.5, 2.5


def recorded(name: str) -> dict[str, Any]:
    recording: dict[str, Any] = json.loads((RECORDINGS / f"{name}.json").read_text())
    return recording


def simulated(recording: dict[str, Any], folder: Path) -> Result:
    """The same policy, traffic and replicas."""
    (folder / "slow.json").write_text(recording["model"])
    file = folder / "service.hcl.j2"
    file.write_text(recording["service"])
    points = [(float(at), float(rate)) for at, rate in recording["trace"]]
    return simulate(
        load_service(file, {}),
        Trace(points=points, seconds=recording["seconds"], starts_at=A_MONDAY),
        Assumptions(
            capacity=recording["capacity"],
            startup_s=STARTUP_S,
            placement_s=PLACEMENT_S,
            latency_s=1 / recording["capacity"],
            scrape_s=2,
            replicas=1,
        ),
    )


def count_at(changes: list[tuple[float, int]], at_s: float) -> int:
    return next((count for since, count in reversed(changes) if since <= at_s), 1)


def test_with_room_to_spare_every_change_is_the_real_one_within_one_evaluation(tmp_path: Path) -> None:
    recording = recorded("spare")
    changes = simulated(recording, tmp_path).changes
    assert [(change.before, change.after) for change in changes] == [
        (change["before"], change["after"]) for change in recording["changes"]
    ]
    for ours, real in zip(changes, recording["changes"], strict=True):
        assert ours.at_s == pytest.approx(real["at_s"], abs=EVALUATION_S)


def test_under_overload_the_count_is_never_off_by_more_than_one_for_long(tmp_path: Path) -> None:
    recording = recorded("overload")
    ours = [(change.at_s, change.after) for change in simulated(recording, tmp_path).changes]
    real = [(change["at_s"], change["after"]) for change in recording["changes"]]
    # A change may fall one evaluation, and the rest after it, earlier or later: then the nearest count is compared.
    slack_s = 4 * EVALUATION_S
    for at_s in range(int(recording["seconds"])):
        near = {count_at(real, at_s + shift) for shift in (-slack_s, 0.0, slack_s)}
        assert min(abs(count_at(ours, at_s) - count) for count in near) <= 1, f"second {at_s}"
    assert count_at(ours, recording["seconds"]) == count_at(real, recording["seconds"]) == 1


def test_under_overload_as_much_is_refused_as_really_was(tmp_path: Path) -> None:
    recording = recorded("overload")
    refused = sum(load["refused"] for load in recording["loads"])
    assert simulated(recording, tmp_path).refused == pytest.approx(refused, rel=0.35)
