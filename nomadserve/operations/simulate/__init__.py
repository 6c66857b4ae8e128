"""Replay traffic against a service file's scaling, before users meet it.

    trace.py       traffic, from a file or from Prometheus
    replicas.py    replicas that start, answer, queue, refuse     clock.py     when a schedule holds
    queries.py     what the policy's queries answer               promql.py    as Prometheus computes it
    autoscaler.py  what the Nomad Autoscaler makes of it          core.py      all of it, tick by tick
    ledger.py      adds it up                                     result.py    what was found out

All but `trace` and `page` is pure. `docs/bench.md` has the formula; a test holds it against what the real one did.
"""

from nomadserve.errors import WrongInput
from nomadserve.operations.simulate.core import Player
from nomadserve.operations.simulate.queries import SIMULATED
from nomadserve.operations.simulate.result import Assumptions, Change, Moment, Result
from nomadserve.operations.simulate.trace import Trace
from nomadserve.spec import Scaling, Service

__all__ = ["Assumptions", "Change", "Moment", "Result", "Trace", "simulate"]

HOUR_S = 3600.0


def simulate(service: Service, trace: Trace, assumptions: Assumptions) -> Result:
    """Play the trace.

    Raises:
        WrongInput: the file scales by nothing that follows from traffic or time.
    """
    scaling = service.scaling
    if scaling is None:
        raise WrongInput(
            f"`{service.name}` has no `scaling` block", hint="add one; `nomadserve bench` proposes its target"
        )
    left_out = not_simulated(scaling)
    if left_out and len(left_out) == len(scaling.targets) + (scaling.query is not None) and not scaling.schedules:
        raise WrongInput(
            f"the file scales by {_listed(left_out)} only, which does not follow from traffic",
            hint="what can be simulated: `requests_per_second`, `in_flight`, `backlog_seconds`, `schedule`",
        )
    played = Player(service, trace, assumptions).play()
    ledger, hours = played.ledger, trace.seconds / HOUR_S
    replica_hours = ledger.replica_seconds / HOUR_S
    return Result(
        service=service.job_id,
        trace=trace.origin,
        starts_at=trace.starts_at,
        seconds=trace.seconds,
        assumptions=assumptions,
        requests=round(ledger.offered, 1),
        refused=round(ledger.refused, 1),
        refused_longest_s=ledger.refused_longest_s,
        wait_p50_s=ledger.wait_s(50),
        wait_p99_s=ledger.wait_s(99),
        replicas_max=ledger.replicas_max,
        replicas_mean=round(replica_hours / hours, 3),
        replica_hours=round(replica_hours, 4),
        gpu_hours=round(replica_hours * service.gpu.count, 4) if service.gpu else None,
        hours_at_max=round(hours * scaling.max, 4),
        changes=played.changes,
        moments=ledger.moments,
        notes=[f"left out: {_listed(left_out)}, which does not follow from traffic"] if left_out else [],
    )


def not_simulated(scaling: Scaling) -> list[str]:
    """The kinds of targets, and the query, that are left out."""
    kinds = [target.kind for target in scaling.targets if not isinstance(target, SIMULATED)]
    return kinds + (["query"] if scaling.query is not None else [])


def _listed(words: list[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
