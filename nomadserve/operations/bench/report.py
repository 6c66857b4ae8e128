"""Everything that one `bench` found out: what `--json` prints and what the HTML report shows."""

import msgspec

from nomadserve.operations.bench.knee import Limits, Step, knee_of
from nomadserve.operations.bench.proposal import Proposal


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One replica measured from low to high.

    Attributes:
        threads: of the model; None where they are as they are.
        knee: the highest rate that passed, requests a second; None where none did.
        startup_s: from the start of the process until it was ready; None where it ran already.
        single_ms: median latency of requests that came one by one.
    """

    threads: int | None
    knee: float | None
    startup_s: float | None
    single_ms: float
    steps: list[Step]

    @property
    def in_order(self) -> list[Step]:
        """Its steps by rate, of two tries of a rate the second: what charts and tables show."""
        return [step for _, step in sorted({step.rate: step for step in self.steps}.items())]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of it.

    Attributes:
        target: as given.  subject: what that is, in words.
        payload: where the bodies come from, in words.  rows: of the mean request.
        runs: one, or one for each number of threads that was compared; the best first.
        proposal: None where no rate passed.
        doubts: what to know before believing the figures.
    """

    target: str
    subject: str
    model: str
    payload: str
    rows: float
    limits: Limits
    machine: str
    measured_at: str
    nomadserve: str
    runs: list[Run]
    proposal: Proposal | None
    doubts: list[str]

    @property
    def best(self) -> Run:
        """The run that the proposal follows."""
        return self.runs[0]

    @property
    def knee(self) -> Step | None:
        """The step at the knee of the best run."""
        return knee_of(self.best.steps)


def best_first(runs: list[Run]) -> list[Run]:
    """By knee; where two come out within 5 %, the one with fewer threads, which leaves more to others."""
    highest = max((run.knee or 0.0 for run in runs), default=0.0)
    near = [run for run in runs if (run.knee or 0.0) >= 0.95 * highest]
    first = min(near, key=lambda run: run.threads or 0)
    return [first, *sorted((run for run in runs if run is not first), key=lambda run: -(run.knee or 0.0))]
