"""Measurements of all rounds, and their medians."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from benchmarks.measure import Measured


class Key(NamedTuple):
    """What was measured."""

    peer: str
    model: str
    form: str
    load: str
    connections: int


@dataclass(frozen=True)
class Median:
    """Medians over the rounds.

    Attributes:
        wrong: wrong replies and broken connections of all rounds.
        foreign: the largest share of the machine that others used.
    """

    rounds: int
    answered: float
    refused: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    memory_mb: float
    wrong: int
    foreign: float
    extra: dict[str, float] = field(default_factory=dict)


def medians(measured: Iterable[Measured]) -> dict[Key, Median]:
    """Over all rounds of each key."""
    groups: defaultdict[Key, list[Measured]] = defaultdict(list)
    for each in measured:
        groups[Key(each.peer, each.model, each.form, each.load, each.connections)].append(each)
    return {key: _median(group) for key, group in groups.items()}


def _median(group: list[Measured]) -> Median:
    extras = [each.extra for each in group]
    return Median(
        rounds=len(group),
        answered=median(each.answered for each in group),
        refused=median(each.refused for each in group),
        p50_ms=median(each.p50_ms for each in group),
        p99_ms=median(each.p99_ms for each in group),
        cpu_us=median(each.cpu_us for each in group),
        memory_mb=median(each.memory_mb for each in group),
        wrong=sum(len(each.wrong) for each in group),
        foreign=max(each.foreign for each in group),
        extra={name: median(extra[name] for extra in extras) for name in extras[0]},
    )
