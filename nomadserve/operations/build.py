"""Build the plans of a service's models on a node of the cluster, as a batch job that leaves nothing but the plans."""

import time
from collections.abc import Iterator
from typing import Any

from nomadserve.errors import BlockedOnCapacity, NomadserveError, TimedOut, WrongInput
from nomadserve.nomad_api import Job, NomadRefused
from nomadserve.operations import fit
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.events import BuildMoved, Done, Event, JobRegistered, LogLine
from nomadserve.operations.follow import last_log_lines, no_room_text
from nomadserve.render import build_job_id, render_build_job
from nomadserve.spec import Service

TASK = "build"
POLL_S = 1.0  # a build takes minutes; its log is read that often
OVER = {"complete", "failed", "lost"}


class BuildFailed(NomadserveError):
    """The plans could not be built on the node that was found."""


def build_on_cluster(cluster: Cluster, service: Service, *, timeout_s: float) -> Iterator[Event]:
    """Build on a node that could run a replica; the plans stay in its cache, for the replicas that come.

    The job is taken away at the end, however it ends; only a wait that is over leaves it running.

    Raises:
        WrongInput: nothing of the service is built, or its plans would be lost with the job.
        BlockedOnCapacity: no node has room, or the GPU that is asked for.
        BuildFailed: the builder failed; what it said was reported before.
        TimedOut: it is not done after `timeout_s`; it goes on.
    """
    require_use(service)
    job_id = build_job_id(service)
    source = render_build_job(service)
    job = cluster.nomad.parse(source)
    current = cluster.nomad.job(job_id)
    if current is not None and current["Status"] != "dead":
        raise WrongInput(f"`{job_id}` is being built already", hint=f"`nomad job stop {job_id}` ends that")
    index = current["JobModifyIndex"] if current else 0
    evaluation_id = cluster.nomad.register(job, source=source, modify_index=index, preserve_counts=False)
    is_left_running = False
    try:
        yield JobRegistered(job_id=job_id)
        yield from _followed(cluster, job, evaluation_id, timeout_s=timeout_s)
    except TimedOut:
        is_left_running = True
        raise
    finally:
        if not is_left_running:
            cluster.nomad.deregister(job_id)


def require_use(service: Service) -> None:
    """Refuse a build from which no replica would ever gain.

    Raises:
        WrongInput: saying why.
    """
    if not service.built:
        raise WrongInput(
            f"no model of {service.name} is built: TensorRT builds an `.onnx` where a `gpu` is asked for",
            hint='add a `gpu` block, or `engine = "tensorrt"`',
        )
    if service.driver != "raw_exec" and service.engine_cache is None:
        raise WrongInput(
            f"under `{service.driver}`, a plan that is built ahead is lost with the job that built it",
            hint="name a host volume of the nodes in `engine_cache`, which all replicas of a node share",
        )


def _followed(cluster: Cluster, job: Job, evaluation_id: str, *, timeout_s: float) -> Iterator[Event]:
    """Report the build until its task has ended well. Raises as `build_on_cluster`."""
    deadline = time.monotonic() + timeout_s
    told, state = _Told(cluster), ""
    while True:
        stub = _allocation(cluster, job["ID"], evaluation_id)
        if stub is None:
            _raise_if_blocked(cluster, job)
        else:
            yield from told.news(stub["ID"])
            if stub["ClientStatus"] != state:
                state = stub["ClientStatus"]
                yield BuildMoved(allocation=stub["ID"][:8], node=stub["NodeName"], state=state)
            if state in OVER:
                yield from told.news(stub["ID"])
                yield _done(cluster, stub, told)
                return
        if time.monotonic() > deadline:
            hint = f"`nomad alloc logs -job {job['ID']}` shows how it fares; `--timeout` waits longer"
            raise TimedOut(f"`{job['ID']}` has not built its plans yet; it goes on", hint=hint)
        time.sleep(POLL_S)


def _allocation(cluster: Cluster, job_id: str, evaluation_id: str) -> dict[str, Any] | None:
    """The allocation that the evaluation placed; those of earlier builds of that name do not count."""
    found = [stub for stub in cluster.nomad.allocations(job_id) if stub["EvalID"] == evaluation_id]
    return found[-1] if found else None


def _raise_if_blocked(cluster: Cluster, job: Job) -> None:
    if cluster.nomad.is_blocked(job["ID"]):
        raise BlockedOnCapacity(
            no_room_text(job["ID"], fit.explain(cluster, job), placed=0, wanted=1),
            hint="nothing is left of it: repeat it once a node has room, or change what the file asks for",
        )


def _done(cluster: Cluster, stub: dict[str, Any], told: "_Told") -> Done:
    """The result; what failed is raised instead."""
    if stub["ClientStatus"] != "complete":
        said = "" if told.has_spoken else "\n" + last_log_lines(cluster, stub)
        hint = "its log is above: mend the cause and repeat it" if told.has_spoken else "mend the cause and repeat it"
        if _is_killed(stub):
            hint = "a task that is killed (signal 9) most likely needs more `memory` in `resources`"
        raise BuildFailed(f"the plans could not be built on {stub['NodeName']}{said}".rstrip(), hint=hint)
    plans = ", ".join(told.whole("stdout").split())
    return Done(text=f"built on {stub['NodeName']}: {plans}", hint="replicas on that node start from there")


def _is_killed(stub: dict[str, Any]) -> bool:
    """Whether the kernel ended the task; it does so where a task takes more memory than it asked for."""
    events = ((stub["TaskStates"] or {}).get(TASK) or {}).get("Events") or []
    return any((event.get("Details") or {}).get("signal") == "9" for event in events)


class _Told:
    """What the task of a build wrote, and how much of it was reported."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._written = {"stderr": b"", "stdout": b""}
        self._lines = 0

    @property
    def has_spoken(self) -> bool:
        """Whether anything of it was reported."""
        return self._lines > 0

    def whole(self, stream: str) -> str:
        """All that was written to a stream so far."""
        return self._written[stream].decode("utf-8", "replace")

    def news(self, allocation_id: str) -> Iterator[Event]:
        """The whole lines of stderr since the last time."""
        for stream, known in self._written.items():
            more = self._read(allocation_id, stream, len(known))
            self._written[stream] = known + more
        lines = self.whole("stderr").split("\n")[:-1]
        for line in lines[self._lines :]:
            yield LogLine(text=line)
        self._lines = len(lines)

    def _read(self, allocation_id: str, stream: str, offset: int) -> bytes:
        try:
            return self._cluster.nomad.task_log_since(allocation_id, TASK, stream=stream, offset=offset)
        except NomadRefused:  # not started yet
            return b""
