"""One replica, from one request at a time to more than it takes."""

import time
from collections.abc import Generator
from dataclasses import dataclass

from nomadserve.operations.bench.events import StepMeasured, StepMoves, SubjectReady
from nomadserve.operations.bench.knee import Step, knee_of, next_rate
from nomadserve.operations.bench.payload import Payload
from nomadserve.operations.bench.replica import Replica
from nomadserve.operations.bench.report import Run
from nomadserve.operations.bench.singles import ask_singly
from nomadserve.operations.bench.subject import Subject
from nomadserve.operations.bench.wishes import Wishes
from nomadserve.operations.events import Event
from nomadserve.operations.load import Load, LoadProcess, Outcome, Progress

REQUESTS_MIN = 100  # of a step: fewer make no 99th percentile
STEP_S_MAX = 60.0
TIMEOUT_S_MIN = 2.0
TIMEOUT_LIMITS = 10.0  # a reply that takes this many times the latency limit counts as none


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one replica afterwards."""

    words: str
    model: str
    payload: Payload
    run: Run


def measure(subject: Subject, wishes: Wishes, threads: int | None) -> Generator[Event, None, Measured]:
    """Load the subject in steps until its knee is found.

    threads: that its model has; None where nobody chose.

    Raises:
        WrongInput: the payload does not fit the model.
        NoReplica: it does not answer.
    """
    replica = subject.replica
    try:
        singles = ask_singly(subject, wishes)
        single_ms = round(singles.single_s * 1e3, 3)
        yield SubjectReady(words=subject.words, single_ms=single_ms, threads=threads)
        steps: list[Step] = []
        with LoadProcess(singles.aim) as load_process:
            while rate := next_rate(steps, start=singles.start, precision=wishes.precision, rate_max=wishes.rate_max):
                steps.append((yield from _step(load_process, replica, singles.model, load_at(rate, wishes), wishes)))
                yield StepMeasured(step=steps[-1])
    finally:
        replica.close()
    knee = knee_of(steps)
    run = Run(
        threads=threads,
        knee=knee.rate if knee else None,
        startup_s=None if subject.startup_s is None else round(subject.startup_s, 2),
        single_ms=single_ms,
        steps=steps,
    )
    return Measured(subject.words, singles.model, singles.payload, run)


def load_at(rate: float, wishes: Wishes) -> Load:
    """A step at this rate: as long as wished, longer where too few requests would come."""
    counted_s = min(max(wishes.step_s, REQUESTS_MIN / rate), max(STEP_S_MAX, wishes.step_s))
    timeout_s = max(TIMEOUT_S_MIN, TIMEOUT_LIMITS * wishes.limits.p99_s)
    return Load(
        rate=rate, seconds=wishes.settle_s + counted_s, settle_seconds=wishes.settle_s, timeout_s=timeout_s, drain=True
    )


def _step(
    load_process: LoadProcess, replica: Replica, model: str, load: Load, wishes: Wishes
) -> Generator[Event, None, Step]:
    before, started_at = replica.counters(model), time.monotonic()
    outcome: Outcome | None = None
    for message in load_process.run(load):
        if isinstance(message, Outcome):
            outcome = message
        else:
            yield _moves(message, load)
    assert outcome is not None
    after, elapsed_s = replica.counters(model), time.monotonic() - started_at
    batch_rows = cpu_cores = None
    if before is not None and after is not None:
        batches = after.batches - before.batches
        batch_rows = round((after.rows - before.rows) / batches, 2) if batches else None
        cpu_cores = round((after.cpu_seconds - before.cpu_seconds) / elapsed_s, 2)
    return Step(
        outcome=outcome,
        verdict=wishes.limits.judge(outcome),
        is_late=wishes.limits.is_late(outcome),
        batch_rows=batch_rows,
        cpu_cores=cpu_cores,
    )


def _moves(progress: Progress, load: Load) -> StepMoves:
    return StepMoves(
        rate=load.rate,
        elapsed_s=progress.elapsed_s,
        seconds=load.seconds,
        sent=progress.sent,
        ok=progress.ok,
        refused=progress.refused,
        failed=progress.failed,
    )
