"""`scripts/memory-run`: ten minutes at 256 connections, and whether memory stays where it is.

One line each half minute on stdout; exit code 1 where memory still grew after the first two minutes, which fill caches
and the allocator's arenas.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import wrk
from benchmarks.catalogue import OWN, PEERS
from benchmarks.environments import cache_folder
from benchmarks.measure import LOAD_CORE, SERVER_CORE
from benchmarks.models import make
from benchmarks.running import Running, serving

CONNECTIONS = 256
MINUTES = 10.0
SAMPLE_S = 30.0
SETTLED_AFTER_S = 120.0
# Of the later half's median over the earlier half's, once settled: what a slow leak of a byte a request exceeds.
GROWTH_MB_MAX = 2.0


@dataclass(frozen=True)
class Sample:
    """What the server's process tree holds."""

    at_s: float
    memory_mb: float
    files: int
    threads: int
    answered: float

    def __str__(self) -> str:
        return f"{self.at_s:7.0f} {self.memory_mb:11.2f} {self.files:12} {self.threads:8} {self.answered:10,.0f}"


def main(arguments: Sequence[str]) -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--model", default="mlp", choices=["mlp", "convnet"])
    parser.add_argument("--form", default="json", choices=["json", "binary"])
    wanted = parser.parse_args(arguments)
    folder = cache_folder() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    model = make(wanted.model, folder)
    print("seconds   memory MB  descriptors  threads  replies/s")
    with serving(PEERS[OWN], model, wanted.form, core=SERVER_CORE) as running:
        samples = list(_samples(running, minutes=wanted.minutes))
    growth_mb = _growth_mb([each for each in samples if each.at_s > SETTLED_AFTER_S] or samples)
    answered = sum(each.answered for each in samples) * SAMPLE_S
    print(f"{answered:,.0f} replies; memory grew by {growth_mb:.2f} MB once settled (at most {GROWTH_MB_MAX:g})")
    return 0 if growth_mb <= GROWTH_MB_MAX else 1


def _samples(running: Running, *, minutes: float) -> list[Sample]:
    started_at, samples = time.monotonic(), []
    while time.monotonic() - started_at < minutes * 60:
        load = wrk.run(
            port=running.port,
            requests=running.requests,
            connections=CONNECTIONS,
            seconds=SAMPLE_S,
            core=LOAD_CORE,
        )
        sample = _sample(running, at_s=time.monotonic() - started_at, answered=load.answered)
        print(sample, flush=True)
        samples.append(sample)
    return samples


def _sample(running: Running, *, at_s: float, answered: float) -> Sample:
    processes = [Path(f"/proc/{pid}") for pid in running.tree.pids()]
    return Sample(
        at_s=at_s,
        memory_mb=running.tree.memory_mb(),
        files=sum(len(list((process / "fd").iterdir())) for process in processes),
        threads=sum(len(list((process / "task").iterdir())) for process in processes),
        answered=answered,
    )


def _growth_mb(samples: Sequence[Sample]) -> float:
    half = len(samples) // 2
    if not half:
        return 0.0
    earlier, later = samples[:half], samples[-half:]
    return statistics.median(each.memory_mb for each in later) - statistics.median(each.memory_mb for each in earlier)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
