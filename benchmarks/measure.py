"""One peer in one round: its server up, each number of connections in turn."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import wrk
from benchmarks.catalogue import Peer
from benchmarks.client import Sampling
from benchmarks.models import Model
from benchmarks.processes import machine_busy_s
from benchmarks.running import ROOT, Running, serving

SERVER_CORE, LOAD_CORE = 0, 1
WARM_UP_S, WARM_UP_CONNECTIONS = 1, 16

BARE_BATCHES, BARE_S = (1, 8, 32), 2

OVERLOAD_CONNECTIONS, OVERLOAD_QUEUE_MAX = 1000, 128


@dataclass(frozen=True)
class Measured:
    """One measurement.

    Attributes:
        load: `steady`; `overload`: 1,000 connections that retry at once, queue limit 128; `flood`: an open loop at four
            times the capacity.
        answered: right kind of replies per second.
        cpu_us: of the server's whole tree, per request (answered or refused).
        checked: replies compared with the model during the measurement.
        wrong: what was wrong with others; also connections that broke.
        foreign: share of both cores that neither server nor load generator used: noise.
        extra: further figures, of loads that have some.
    """

    peer: str
    model: str
    form: str
    load: str
    connections: int
    answered: float
    refused: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    memory_mb: float
    checked: int
    wrong: tuple[str, ...]
    foreign: float
    extra: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


Report = Callable[[Measured], None]


def measure(peer: Peer, model: Model, form: str, *, connections: Iterable[int], seconds: float, report: Report) -> None:
    """Start the server, warm it up, measure each number of connections."""
    with serving(peer, model, form, core=SERVER_CORE) as running:
        warm_up(running)
        for count in connections:
            report(_measure(running, model, form, load="steady", connections=count, seconds=seconds))


def measure_overload(peer: Peer, model: Model, form: str, *, seconds: float, report: Report) -> None:
    """1,000 connections that ask again as soon as they are answered or refused."""
    with serving(peer, model, form, core=SERVER_CORE, queue_max=OVERLOAD_QUEUE_MAX) as running:
        warm_up(running)
        report(_measure(running, model, form, load="overload", connections=OVERLOAD_CONNECTIONS, seconds=seconds))


def warm_up(running: Running) -> None:
    """What is done for the first time costs more."""
    wrk.run(
        port=running.port,
        requests=running.requests,
        connections=WARM_UP_CONNECTIONS,
        seconds=WARM_UP_S,
        core=LOAD_CORE,
    )


def _measure(running: Running, model: Model, form: str, *, load: str, connections: int, seconds: float) -> Measured:
    is_overload = load == "overload"
    sampling = Sampling(running.port, running.form.dialect, [] if is_overload else running.questions)
    running.tree.prefer(os.getpriority(os.PRIO_PROCESS, 0))  # as this process, which it may have been given
    cpu_before, busy_before = running.tree.cpu_s(), machine_busy_s()
    with sampling:
        result = wrk.run(
            port=running.port,
            requests=running.requests,
            connections=connections,
            seconds=seconds,
            core=LOAD_CORE,
        )
    cpu_s, busy_s = running.tree.cpu_s() - cpu_before, machine_busy_s() - busy_before
    replies = (result.answered + result.refused) * seconds
    broken = (f"{result.broken} connections broke or got no reply",) if result.broken and not is_overload else ()
    return Measured(
        peer=running.peer.name,
        model=model.name,
        form=form,
        load=load,
        connections=connections,
        answered=result.answered,
        refused=result.refused,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        cpu_us=cpu_s / replies * 1e6 if replies else 0.0,
        memory_mb=running.tree.memory_mb(),
        checked=sampling.checked,
        wrong=(*sampling.wrong, *broken),
        foreign=max(0.0, busy_s - cpu_s - result.cpu_s) / seconds,
    )


def measure_bare_engine(model: Model) -> Iterator[Measured]:
    """ONNX Runtime alone, at each batch size; `connections` are the rows of a batch."""
    for rows in BARE_BATCHES:
        command = ["taskset", "--cpu-list", str(SERVER_CORE), sys.executable, "-m", "benchmarks.bare_engine"]
        command += [str(model.path), ",".join(map(str, model.row_shape)), str(rows), str(BARE_S)]
        found = float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
        yield Measured("bare_engine", model.name, "", "steady", rows, found, 0, 0, 0, 1e6 / found, 0, 0, (), 0)
