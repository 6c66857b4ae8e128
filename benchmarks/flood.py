"""Overload (a): an open loop at four times what the server can do."""

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks import wrk
from benchmarks.catalogue import Peer
from benchmarks.measure import LOAD_CORE, OVERLOAD_QUEUE_MAX, SERVER_CORE, Measured, Report, warm_up
from benchmarks.models import Model
from benchmarks.processes import children_cpu_s, machine_busy_s
from benchmarks.running import ROOT, Running, serving

TIMES_CAPACITY = 4
CAPACITY_CONNECTIONS = 64
# The first flood fills the queue for the first time, and its memory: the system has to bring every page of it.
FIRST_FLOOD_S = 1


def measure_flood(peer: Peer, model: Model, form: str, *, seconds: float, report: Report) -> None:
    """Capacity first, in a closed loop; then the flood, on the same server."""
    with serving(peer, model, form, core=SERVER_CORE, queue_max=OVERLOAD_QUEUE_MAX) as running:
        running.tree.prefer(os.getpriority(os.PRIO_PROCESS, 0))  # as this process, which it may have been given
        warm_up(running)
        cpu_before = running.tree.cpu_s()
        counts = _load(running, connections=CAPACITY_CONNECTIONS, seconds=seconds)
        answer_cpu_s = (running.tree.cpu_s() - cpu_before) / counts["answered"]
        # To the last reply, not to the end of the time: batches of 32 come back seldom, and one more or less is 5 %.
        capacity = counts["answered"] / counts["lasted_s"]
        _load(running, rate=TIMES_CAPACITY * capacity, seconds=FIRST_FLOOD_S)
        report(_flood(running, model, form, capacity, answer_cpu_s, seconds))


def _flood(running: Running, model: Model, form: str, capacity: float, answer_cpu_s: float, seconds: float) -> Measured:
    cpu_before, load_before, busy_before = running.tree.cpu_s(), children_cpu_s(), machine_busy_s()
    counts = _load(running, rate=TIMES_CAPACITY * capacity, seconds=seconds)
    load_s = children_cpu_s() - load_before
    cpu_s, busy_s = running.tree.cpu_s() - cpu_before, machine_busy_s() - busy_before
    lasted_s = max(seconds, counts["lasted_s"])  # what is queued is answered after the last request has left
    goodput = counts["answered"] / lasted_s
    refusals_cpu_s = max(0.0, cpu_s - counts["answered"] * answer_cpu_s)
    wrong = [f"{count} × {what}" for what, count in counts["failed"].items()]
    wrong += [f"{counts['not_sent']} not sent: all connections were taken"] if counts["not_sent"] else []
    return Measured(
        peer=running.peer.name,
        model=model.name,
        form=form,
        load="flood",
        connections=0,
        answered=goodput,
        refused=counts["refused"] / seconds,
        p50_ms=counts["p50_ms"],
        p99_ms=counts["p99_ms"],
        cpu_us=answer_cpu_s * 1e6,
        memory_mb=running.tree.memory_mb(),
        checked=0,
        wrong=tuple(wrong),
        foreign=max(0.0, busy_s - cpu_s - load_s) / lasted_s,
        extra={
            "capacity": capacity,
            "goodput_share": goodput / capacity,
            "predicted": counts["predicted"],
            "p50_over_predicted": counts["p50_over_predicted"],
            "p99_over_predicted": counts["p99_over_predicted"],
            "refusal_ms": refusals_cpu_s / max(1, counts["refused"]) * 1e3,
            "refused_p99_ms": counts["refused_p99_ms"],
        },
    )


def _load(running: Running, **wanted: float) -> dict[str, Any]:
    """What became of a load: `rate` or `connections`, and `seconds`."""
    where = {"port": running.port, "requests": [str(path) for path in running.requests]}
    done = subprocess.run(
        ["taskset", "--cpu-list", str(LOAD_CORE), sys.executable, "-m", "benchmarks.open_loop"],
        input=json.dumps(where | wanted) + "\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if done.returncode:
        raise wrk.LoadFailed(done.stderr[-500:])
    counts: dict[str, Any] = json.loads(done.stdout)
    return counts
