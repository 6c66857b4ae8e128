"""Find what one replica can take: load in steps, until the limits break; then say what that means for the file.

subject.py    TARGET → a replica that answers       payload.py    bodies, the user's own or made
measure.py    one replica, from low to high         knee.py       which rate next; where the knee is (pure)
proposal.py   steps → values for the file (pure)    report.py     all that was found out
"""

import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from typing import cast

import msgspec

from nomadserve.errors import WrongInput
from nomadserve.operations.bench.events import BenchDone, StepMeasured, StepMoves, SubjectReady
from nomadserve.operations.bench.knee import Limits
from nomadserve.operations.bench.measure import Measured, measure
from nomadserve.operations.bench.proposal import doubts_about, propose
from nomadserve.operations.bench.report import Report, best_first
from nomadserve.operations.bench.subject import file_served, is_file, running
from nomadserve.operations.bench.wishes import Wishes
from nomadserve.operations.events import Event

__all__ = ["BenchDone", "Limits", "Report", "StepMeasured", "StepMoves", "SubjectReady", "Wishes", "bench"]

BATCH_ROWS_MAX = 32  # `max_batch` of the runtime, where nobody says


def bench(target: str, wishes: Wishes) -> Iterator[Event]:
    """Measure TARGET: a model file, a URL, or a service; `BenchDone` comes last.

    Raises:
        WrongInput: TARGET or the payload can't be used.
        NoReplica, ServeFailed, NameNotFound: nothing there to measure.
    """
    measured: list[Measured] = []
    if is_file(target):
        for threads in wishes.threads or (None,):
            options = wishes.serve if threads is None else {**wishes.serve, "threads": threads}
            with file_served(target, options) as subject:
                measured.append((yield from measure(subject, _alike(wishes, measured), threads)))
    else:
        if wishes.threads or wishes.serve:
            raise WrongInput(
                "only a model file can be served with other options",
                hint="a running replica is measured as it is: leave `--threads` and the options of `serve` out",
            )
        subject = running(target, version=wishes.version, through_gateway=wishes.through_gateway)
        measured.append((yield from measure(subject, wishes, None)))
    yield BenchDone(report=_report(target, wishes, measured))


def _alike(wishes: Wishes, measured: list[Measured]) -> Wishes:
    """The wishes for the next run: it takes the same steps as the first one, so that the two can be compared."""
    if not measured:
        return wishes
    return msgspec.structs.replace(wishes, start=measured[0].run.steps[0].rate)


def _report(target: str, wishes: Wishes, measured: list[Measured]) -> Report:
    runs = best_first([each.run for each in measured])
    payload = measured[0].payload
    batch_rows_max = cast("int", wishes.serve.get("max-batch") or BATCH_ROWS_MAX)
    threads = runs[0].threads if len(runs) > 1 else None
    return Report(
        target=target,
        subject=measured[0].words,
        model=measured[0].model,
        payload=payload.origin,
        rows=payload.rows,
        limits=wishes.limits,
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        measured_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        nomadserve=version_of("nomadserve"),
        runs=runs,
        proposal=propose(
            runs[0].steps, wishes.limits, rows=payload.rows, batch_rows_max=batch_rows_max, threads=threads
        ),
        doubts=doubts_about(runs[0].steps, rate_max=wishes.rate_max),
    )
