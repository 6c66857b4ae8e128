"""From what was measured to what the service file should say. Pure."""

import math
from collections.abc import Sequence

import msgspec

from nomadserve.operations.bench.knee import KEPT_UP, Limits, Step, Verdict, bracket, knee_of

# What is left at the knee answers the growth of load while a new replica starts, and what one machine is slower.
TARGET_SHARE = 0.75

# Throughputs of overloaded steps differ by less than this on a quiet machine.
CONTRADICTION = 1.2

# The runtime hands the engine one batch while another runs (`policy.handed_max` there): both are ahead of the queue.
BATCHES_AHEAD = 2


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """Values for the service file.

    Attributes:
        requests_per_second: `value` of the scaling target.
        queue_max: rows; `queue.max`.
        wait_s_max: what a request waits for at most, behind a full queue of that length.
        threads: of the model; None where it was not compared.
    """

    requests_per_second: float
    queue_max: int
    wait_s_max: float
    threads: int | None = None

    @property
    def hcl(self) -> str:
        """The lines for the service file."""
        target = f'scaling {{\n  target "requests_per_second" {{\n    value = {self.requests_per_second:g}\n  }}\n}}'
        queue = f"queue {{\n  max = {self.queue_max}\n}}"
        model = [f'model "…" {{\n  threads = {self.threads}\n}}'] if self.threads is not None else []
        return "\n\n".join([target, queue, *model])


def propose(
    steps: Sequence[Step], limits: Limits, *, rows: float, batch_rows_max: int, threads: int | None = None
) -> Proposal | None:
    """What the steps say; None where no rate passed.

    rows: of the mean request.  batch_rows_max: the model's `max_batch`, which a queue must hold.

    The queue: behind `queue.max` rows and the batches under way, the last row in must still be answered within the
    limit, at the highest rate of rows that was seen. A longer one only makes answers late that could be refused early.
    """
    knee = knee_of(steps)
    if knee is None:
        return None
    rows_per_second = max(step.outcome.throughput for step in steps) * rows
    ahead = BATCHES_AHEAD * _fullest_batch(steps, batch_rows_max)
    queue_max = max(batch_rows_max, math.floor(rows_per_second * limits.p99_s - ahead))
    return Proposal(
        requests_per_second=_two_digits_down(knee.rate * TARGET_SHARE),
        queue_max=queue_max,
        wait_s_max=round((queue_max + ahead) / rows_per_second, 4),
        threads=threads,
    )


def doubts_about(steps: Sequence[Step], *, rate_max: float) -> list[str]:
    """What a reader must know before believing the knee."""
    doubts = []
    knee = knee_of(steps)
    if steps[-1].verdict is Verdict.generator:
        doubts.append(
            "the load generator itself was late: the replica takes at least the knee, and perhaps more. "
            "Run the bench from a machine with a free core"
        )
    if knee is not None and knee.rate >= rate_max:
        doubts.append(f"every rate passed up to the highest that was allowed, {rate_max:g}/s: the knee lies above")
    elif (first_bad := _first_bad(steps)) is not None and first_bad.is_late:
        doubts.append(
            f"at {first_bad.rate:g}/s, where the search ended, the load generator was late too "
            f"({first_bad.outcome.lag_ms['p99']:.0f} ms): something else used the machine, and the replica may take "
            "more"
        )
    if contradiction := _contradiction(steps):
        worse, better = contradiction
        doubts.append(
            f"fewer requests were answered of {worse.rate:g}/s than of {better.rate:g}/s: something else used the "
            "machine meanwhile. Run it again when it is quiet"
        )
    late = [step for step in steps if step.verdict is Verdict.good and step.outcome.cpu_share > 0.8]
    if late:
        doubts.append(f"the load generator used {late[-1].outcome.cpu_share:.0%} of its core")
    return doubts


def _first_bad(steps: Sequence[Step]) -> Step | None:
    """The last try of the lowest rate that failed."""
    _, rate = bracket(steps)
    return next((step for step in reversed(steps) if step.rate == rate), None)


def _contradiction(steps: Sequence[Step]) -> tuple[Step, Step] | None:
    """A step that fell behind, and one at a higher rate that was answered much better all the same."""
    for worse in steps:
        answered = worse.outcome.throughput
        if answered < KEPT_UP * worse.rate:
            for better in steps:
                if better.rate > worse.rate and better.outcome.throughput > CONTRADICTION * answered:
                    return worse, better
    return None


def _fullest_batch(steps: Sequence[Step], batch_rows_max: int) -> float:
    """Mean rows of the fullest step; a full batch where nobody could look."""
    return max((step.batch_rows for step in steps if step.batch_rows is not None), default=float(batch_rows_max))


def _two_digits_down(value: float) -> float:
    """Two digits, never more than the value."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / scale + 1e-9) * scale:.2g}")
