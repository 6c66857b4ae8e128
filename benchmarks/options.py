"""What `scripts/bench` is told."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.catalogue import PEERS
from benchmarks.environments import cache_folder
from benchmarks.models import MAKERS

FORMS = ("json", "binary")


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        overload: whether to measure overload too.
        lock: held while servers are measured, given back every few minutes; None: none.
        priority: nice value of server and load generator; below 0 needs root.
    """

    peers: tuple[str, ...]
    models: tuple[str, ...]
    forms: tuple[str, ...]
    rounds: int
    seconds: int
    connections: tuple[int, ...]
    overload: bool
    output: Path
    lock: Path | None
    priority: int


def read(arguments: Sequence[str]) -> Options:
    """The options in `arguments`; ends the process where they are wrong."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure the runtime against its peers.")
    parser.add_argument(
        "--peers", type=_among(PEERS), default=tuple(PEERS), help="names, by comma: " + ", ".join(PEERS)
    )
    parser.add_argument("--model", type=_among(MAKERS), default=tuple(MAKERS), help="mlp, convnet; both if left away")
    parser.add_argument("--form", type=_among(FORMS), default=FORMS, help="json, binary; both if left away")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement (default 5)")
    parser.add_argument("--connections", type=_numbers, default=(1, 16, 64, 256), help="default 1,16,64,256")
    parser.add_argument("--no-overload", action="store_true", help="leave the overload cases away")
    parser.add_argument("--output", type=Path, default=cache_folder() / "results.json", help="file for all results")
    parser.add_argument("--lock", type=Path, help="hold this file's lock (as flock does) while measuring a server")
    parser.add_argument("--nice", type=int, default=0, help="priority of server and load; below 0 needs root")
    given = parser.parse_args(arguments)
    return Options(
        peers=given.peers,
        models=given.model,
        forms=given.form,
        rounds=given.rounds,
        seconds=given.seconds,
        connections=given.connections,
        overload=not given.no_overload,
        output=given.output,
        lock=given.lock,
        priority=given.nice,
    )


def _among(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    def names_in(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"no `{unknown[0]}`; there is {', '.join(known)}")
        return names

    return names_in


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))
