"""What nomadserve wants to reach, each as a ratio within one run; decided from the medians, pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.catalogue import OWN
from benchmarks.results import Key, Median

BEST_PEER = "mosec"
OTHER_PEERS = ("triton", "fastapi", "mlserver", "ray_serve", "ray_serve_proxy", "litserve", "bentoml")
LIMIT = "echo_rsgi"
BARE_ENGINE = "bare_engine"

# With 64 connections 64 requests are under way at most: whoever waits longer than two turns of them was overtaken.
TURNS_MAX = 2.0


@dataclass(frozen=True)
class Aim:
    """One aim and what was found.

    Attributes:
        found: the ratio or figure; None where it was not measured.
        wanted: what it must reach, or, where `at_most`, not exceed.
    """

    name: str
    wanted: float
    found: float | None
    at_most: bool = False

    @property
    def is_met(self) -> bool:
        """Whether it was measured and reached."""
        if self.found is None:
            return False
        return self.found <= self.wanted if self.at_most else self.found >= self.wanted

    @property
    def verdict(self) -> str:
        """In words."""
        if self.found is None:
            return "not measured"
        return "met" if self.is_met else "not met"


Medians = Mapping[Key, Median]


def aims(medians: Medians) -> list[Aim]:
    """All of them, in the order of the issue."""
    return [
        *_against_best_peer(medians),
        *_against_others(medians),
        *_against_limit(medians),
        *_convnet(medians),
        *_overload(medians),
    ]


def _against_best_peer(medians: Medians) -> Iterator[Aim]:
    for connections, wanted in ((1, 5.0), (16, 2.0), (64, 1.1), (256, 1.1)):
        own, peer = (Key(name, "mlp", "json", "steady", connections) for name in (OWN, BEST_PEER))
        where = f"{connections} connection{'s' * (connections > 1)}"
        yield Aim(f"MLP, JSON: requests/s ÷ {BEST_PEER}'s at {where}", wanted, _ratio(medians, own, peer))
        p99 = _ratio(medians, own, peer, lambda median: median.p99_ms)
        yield Aim(f"MLP, JSON: p99 ÷ {BEST_PEER}'s at {where}", 1.0, p99, at_most=True)


def _against_others(medians: Medians) -> Iterator[Aim]:
    for name in OTHER_PEERS:
        for connections in (16, 64, 256):
            own, peer = (Key(each, "mlp", "json", "steady", connections) for each in (OWN, name))
            if peer in medians:
                where = f"{name}'s at {connections} connections"
                yield Aim(f"MLP, JSON: requests/s ÷ {where}", 5.0, _ratio(medians, own, peer))


def _against_limit(medians: Medians) -> Iterator[Aim]:
    for connections, wanted in ((64, 0.6), (256, 0.5)):
        own, limit = (Key(name, "mlp", "json", "steady", connections) for name in (OWN, LIMIT))
        where = f"the bare HTTP server's at {connections} connections"
        yield Aim(f"MLP, JSON: requests/s ÷ {where}", wanted, _ratio(medians, own, limit))
    ours, bare = (medians.get(Key(name, "mlp", "json", "steady", 64)) for name in (OWN, LIMIT))
    more_us = ours.cpu_us - bare.cpu_us if ours and bare else None
    yield Aim("MLP, JSON: CPU µs a request above the bare HTTP server's at 64 connections", 30.0, more_us, at_most=True)


def _convnet(medians: Medians) -> Iterator[Aim]:
    for connections in (1, 16, 64):
        own, *peers = (Key(name, "convnet", "binary", "steady", connections) for name in (OWN, BEST_PEER, "fastapi"))
        found = [ratio for peer in peers if (ratio := _ratio(medians, own, peer)) is not None]
        where = f"the best peer's at {connections} connection{'s' * (connections > 1)}"
        yield Aim(f"convnet, binary: requests/s ÷ {where}", 1.0, min(found, default=None))
    # One connection makes batches of 1; 16 and 64 make batches of about half of them, and of 32: compared with the
    # nearest batch size of the bare engine.
    for connections, rows in ((1, 1), (16, 8), (64, 32)):
        own, bare = (
            Key(OWN, "convnet", "binary", "steady", connections),
            Key(BARE_ENGINE, "convnet", "", "steady", rows),
        )
        where = f"the bare engine's in batches of {rows}, at {connections} connection{'s' * (connections > 1)}"
        yield Aim(f"convnet, binary: rows/s ÷ {where}", 0.9, _ratio(medians, own, bare))
    for connections in (1, 16, 64):
        own, peer = (Key(name, "convnet", "json", "steady", connections) for name in (OWN, BEST_PEER))
        where = f"{BEST_PEER}'s at {connections} connection{'s' * (connections > 1)}"
        yield Aim(f"convnet, JSON: requests/s ÷ {where}", 1.5, _ratio(medians, own, peer))
    at_64 = medians.get(Key(OWN, "convnet", "json", "steady", 64))
    turns = at_64.p99_ms / (64 / at_64.answered * 1e3) if at_64 and at_64.answered else None
    yield Aim("convnet, JSON: p99 ÷ the time that 64 requests take, at 64 connections", TURNS_MAX, turns, at_most=True)


def _overload(medians: Medians) -> Iterator[Aim]:
    flood = medians.get(Key(OWN, "convnet", "binary", "flood", 0)) or medians.get(
        Key(OWN, "convnet", "json", "flood", 0)
    )
    extra = flood.extra if flood else {}
    yield Aim("overload (a), convnet at 4 × capacity: goodput ÷ capacity", 0.95, extra.get("goodput_share"))
    yield Aim(
        "overload (a): p99 of accepted requests ÷ predicted wait", 1.0, extra.get("p99_over_predicted"), at_most=True
    )
    yield Aim("overload (a): server ms a refusal", 1.0, extra.get("refusal_ms"), at_most=True)
    retrying, steady = Key(OWN, "mlp", "json", "overload", 1000), Key(OWN, "mlp", "json", "steady", 256)
    yield Aim(
        "overload (b), MLP, 1,000 connections retrying: goodput ÷ that at 256 connections",
        0.85,
        _ratio(medians, retrying, steady),
    )


def _ratio(
    medians: Medians, own: Key, other: Key, figure: Callable[[Median], float] = lambda median: median.answered
) -> float | None:
    if own not in medians or other not in medians or not figure(medians[other]):
        return None
    return figure(medians[own]) / figure(medians[other])
