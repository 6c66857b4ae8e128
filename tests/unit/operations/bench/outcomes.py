"""Outcomes of made-up steps."""

from nomadserve.operations.bench.knee import Step, Verdict
from nomadserve.operations.load import Outcome


def outcome(
    rate: float,
    *,
    p99_ms: float | None = 20.0,
    throughput: float | None = None,
    refused: int = 0,
    failures: dict[str, int] | None = None,
    lag_ms: float = 1.0,
    cpu_share: float = 0.1,
) -> Outcome:
    """Ten seconds at `rate`; all that was not refused or failed was answered, unless `throughput` says otherwise."""
    sent = round(rate * 10)
    failed = sum((failures or {}).values())
    ok = sent - refused - failed if throughput is None else round(throughput * 10)
    names = () if p99_ms is None else ("p50", "p90", "p99", "p99.9", "max")
    return Outcome(
        rate=rate,
        seconds=10,
        sent=sent,
        ok=ok,
        refused=refused,
        failures=failures or {},
        latency_ms=dict.fromkeys(names, p99_ms or 0.0),
        lag_ms={"p50": lag_ms, "p99": lag_ms, "max": lag_ms},
        connections=4,
        cpu_share=cpu_share,
    )


def step(
    rate: float,
    verdict: Verdict = Verdict.good,
    *,
    batch_rows: float | None = None,
    throughput: float | None = None,
    cpu_share: float = 0.1,
    is_late: bool = False,
) -> Step:
    """A judged step."""
    return Step(
        outcome=outcome(rate, throughput=throughput, cpu_share=cpu_share),
        verdict=verdict,
        is_late=is_late or verdict is Verdict.generator,
        batch_rows=batch_rows,
    )
