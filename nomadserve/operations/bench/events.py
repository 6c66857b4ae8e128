"""What `bench` reports while it measures."""

from nomadserve.operations.bench.knee import Step
from nomadserve.operations.bench.report import Report
from nomadserve.operations.events import Event


class SubjectReady(Event, frozen=True, kw_only=True):
    """A replica answers; the load begins."""

    words: str
    single_ms: float
    threads: int | None

    def __str__(self) -> str:
        threads = f", threads: {self.threads}" if self.threads is not None else ""
        return f"{self.words}{threads}: one request takes {self.single_ms:.1f} ms"


class StepMoves(Event, frozen=True, kw_only=True):
    """A step is under way."""

    rate: float
    elapsed_s: float
    seconds: float
    sent: int
    ok: int
    refused: int
    failed: int

    def __str__(self) -> str:
        bad = f", {self.refused + self.failed} refused or failed" if self.refused + self.failed else ""
        elapsed_s = min(self.elapsed_s, self.seconds)
        return f"{self.rate:g} requests/s: {elapsed_s:.0f} of {self.seconds:.0f} s, {self.ok} answered{bad}"


class StepMeasured(Event, frozen=True, kw_only=True):
    """A step is done."""

    step: Step

    def __str__(self) -> str:
        outcome = self.step.outcome
        p99_ms = outcome.latency_ms.get("p99")
        p99 = f"p99 {p99_ms:.1f} ms" if p99_ms is not None else "no good answer"
        return (
            f"{outcome.rate:g} requests/s offered, {outcome.throughput:.1f} answered, {p99}, "
            f"{outcome.error_share:.1%} refused or failed: {self.step.verdict}"
        )


class BenchDone(Event, frozen=True, kw_only=True):
    """All is measured."""

    report: Report

    def __str__(self) -> str:
        knee = self.report.knee
        if knee is None:
            return "no rate passed"
        return f"the knee: {knee.rate:g} requests/s, p99 {knee.outcome.latency_ms['p99']:.1f} ms"


class PageReady(Event, frozen=True, kw_only=True):
    """Locust's page is there.

    Attributes:
        users: what its form proposes.
    """

    url: str
    users: int

    def __str__(self) -> str:
        return f"Locust's page is at {self.url}; Ctrl-C ends it"


class PageEnded(Event, frozen=True, kw_only=True):
    """Locust has been ended; what it counted since its counters were last reset."""

    requests: int
    failures: int

    def __str__(self) -> str:
        return f"Locust has ended: {self.requests} requests, {self.failures} failed or refused"
