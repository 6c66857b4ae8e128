"""Follow a registered job until its deployment is healthy, has failed, or waits for room."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nomadserve.errors import BlockedOnCapacity, NomadserveError, TimedOut
from nomadserve.nomad_api import Job, JobChanged, NomadGone, NomadRefused, is_living
from nomadserve.operations import fit, groups
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.events import DeploymentProgress, Event, Note, ReplicaChanged

LOG_LINES = 15
# Nomad's deployment watcher reverts as soon as it sees the failure; without `auto_revert` it never does.
REVERTED_WITHIN_S = 3.0
REVERT_POLL_S = 0.2
# A replica whose deployment is over has passed its check; Consul's own view follows within two intervals of it.
SETTLED_WITHIN_S = 30.0
POLL_S = 0.3
TERMINAL = {"successful", "failed", "cancelled"}


class DeploymentFailed(NomadserveError):
    """The version did not become healthy."""


@dataclass
class Watch:
    """What was told already, so that only news is told."""

    cluster: Cluster
    job: Job
    deadline: float
    states: dict[str, str] = field(default_factory=dict)
    progress: tuple[int, int] | None = None

    def remaining_s(self) -> float:
        """Seconds left until the deadline, not below zero."""
        return max(0.0, self.deadline - time.monotonic())


def follow(cluster: Cluster, job: Job, *, evaluation_id: str | None, timeout_s: float) -> Iterator[Event]:
    """Report the deployment's course until it is healthy.

    evaluation_id: what registering the job started; None to follow the newest deployment there is.

    Raises:
        BlockedOnCapacity: no node has room for a replica; the job waits.
        DeploymentFailed: no replica became healthy, or the deployment failed.
        JobChanged: somebody replaced or stopped the job meanwhile.
        TimedOut: none of that within `timeout_s`; the deployment goes on.
    """
    watch = Watch(cluster, job, time.monotonic() + timeout_s)
    deployment_id = started_deployment(watch, evaluation_id) if evaluation_id else newest_deployment(watch)
    if deployment_id is not None:
        yield from follow_deployment(watch, deployment_id)
    yield from settle(watch)


def follow_deployment(watch: Watch, deployment_id: str) -> Iterator[Event]:
    """Report one deployment until it is successful. Raises as `follow`."""
    index = 0
    while True:
        try:
            deployment, index = watch.cluster.nomad.deployment(deployment_id, index=index)
            placed = watch.cluster.nomad.deployment_allocations(deployment_id)
        except NomadGone as error:
            raise JobChanged(f"`{watch.job['ID']}` was stopped by somebody else meanwhile") from error
        yield from news(watch, placed, deployment)
        raise_if_blocked(watch, placed)
        if deployment["Status"] == "successful":
            return
        if deployment["Status"] == "cancelled":
            raise JobChanged(
                f"a newer revision of `{watch.job['ID']}` replaced this one meanwhile",
                hint=f"`nomadserve status {watch.job['Meta']['nomadserve_service']}` shows how it fares",
            )
        if deployment["Status"] == "failed" or is_hopeless(placed):
            yield from give_up(watch, deployment)
            is_over = deployment["Status"] == "failed"
            raise failure(watch, deployment["StatusDescription"] if is_over else "every replica of it failed")
        if not watch.remaining_s():
            raise timed_out(watch)


def is_hopeless(placed: list[dict[str, Any]]) -> bool:
    """Whether every replica that the deployment placed has failed for good: its restarts are used up.

    Nomad would go on elsewhere until the progress deadline; whoever waits here wants to know now. One failed replica
    of several is left to Nomad.
    """
    return bool(placed) and all(stub["ClientStatus"] == "failed" for stub in placed)


def give_up(watch: Watch, deployment: dict[str, Any]) -> Iterator[Event]:
    """End the deployment as failed, and say so where Nomad goes back to an earlier revision."""
    if deployment["Status"] not in TERMINAL:
        with contextlib.suppress(NomadRefused):  # it ended by itself meanwhile
            watch.cluster.nomad.fail_deployment(deployment["ID"])
    yield from told_rollback(watch, deployment["JobVersion"])


def settle(watch: Watch) -> Iterator[Event]:
    """Wait until as many replicas are healthy as there should be: a deployment that succeeded once proves nothing now.

    Raises:
        DeploymentFailed: they are not, after `SETTLED_WITHIN_S`.
        BlockedOnCapacity: some have no room.
    """
    job_id = watch.job["ID"]
    deadline = time.monotonic() + min(SETTLED_WITHIN_S, watch.remaining_s())
    while True:
        job = watch.cluster.nomad.job(job_id)
        wanted = groups.total(job) if job else 0
        healthy = sum(instance.is_passing for instance in watch.cluster.consul.instances(job_id))
        if healthy >= wanted:
            return
        placed = running_replicas(watch)
        yield from news(watch, placed, None)
        raise_if_blocked(watch, placed)
        if time.monotonic() > deadline:
            raise failure(watch, f"{healthy} of {wanted} replicas are healthy")
        time.sleep(POLL_S)


def started_deployment(watch: Watch, evaluation_id: str) -> str | None:
    """The deployment that an evaluation made, once the scheduler is through with it."""
    index = 0
    while watch.remaining_s():
        evaluation, index = watch.cluster.nomad.evaluation(evaluation_id, index=index)
        if evaluation["Status"] in {"complete", "failed", "canceled"}:
            return evaluation.get("DeploymentID") or newest_deployment(watch)
    raise timed_out(watch)


def newest_deployment(watch: Watch) -> str | None:
    """The newest deployment of the job as it is registered now, or None."""
    deployment = watch.cluster.nomad.latest_deployment(watch.job["ID"])
    current = watch.cluster.nomad.job(watch.job["ID"])
    if deployment is None or current is None or deployment["JobCreateIndex"] != current["CreateIndex"]:
        return None
    return str(deployment["ID"])


def news(watch: Watch, placed: list[dict[str, Any]], deployment: dict[str, Any] | None) -> Iterator[Event]:
    """Replicas and counts that changed since they were last told."""
    for stub in placed:
        state = replica_state(stub)
        if watch.states.get(stub["ID"]) != state:
            watch.states[stub["ID"]] = state
            yield ReplicaChanged(allocation=stub["ID"][:8], node=stub["NodeName"], state=state)
    if deployment is not None:
        groups = deployment["TaskGroups"].values()
        progress = sum(group["HealthyAllocs"] for group in groups), sum(group["DesiredTotal"] for group in groups)
        if watch.progress != progress:
            watch.progress = progress
            yield DeploymentProgress(healthy=progress[0], wanted=progress[1])


def replica_state(stub: dict[str, Any]) -> str:
    """A replica's state in a word or two, from its allocation: Nomad's own words where it runs, plain ones else."""
    if is_living(stub) and stub["DesiredStatus"] != "run":
        return "draining"
    if stub["ClientStatus"] == "pending":
        return "starting"
    restarts = sum(task.get("Restarts", 0) for task in (stub["TaskStates"] or {}).values())
    suffix = f" (restarted {restarts}×)" if restarts else ""
    if stub["ClientStatus"] != "running":
        return f"{stub['ClientStatus']}{suffix}"
    health = (stub.get("DeploymentStatus") or {}).get("Healthy")
    words = {True: "healthy", False: "unhealthy", None: "running, being checked"}
    return words[health] + suffix


def raise_if_blocked(watch: Watch, placed: list[dict[str, Any]]) -> None:
    """Say which nodes refuse a replica, and why, where the scheduler found no room.

    placed: the replicas of this deployment; those of an earlier revision go on, and do not count.
    """
    job_id = watch.job["ID"]
    failed = watch.cluster.nomad.unplaced(job_id)
    if failed is None:
        return
    fit_here = sum(is_living(stub) for stub in placed)
    verdicts = fit.explain(watch.cluster, watch.job, failed)
    raise BlockedOnCapacity(
        no_room_text(job_id, verdicts, placed=fit_here, wanted=groups.total(watch.job)),
        hint=f"the job stays registered and goes on as soon as a node has room; {way_back(watch)}",
    )


def no_room_text(job_id: str, verdicts: list[fit.Verdict], *, placed: int, wanted: int) -> str:
    """What a user reads when the cluster is full or lacks what is asked for."""
    lines = [f"no node has room for `{job_id}`: {placed} of {wanted} replicas placed"]
    return "\n".join([*lines, *(f"  {verdict}" for verdict in verdicts)])


def way_back(watch: Watch) -> str:
    """The command that undoes this deployment and takes nothing else away."""
    service, version = watch.job["Meta"]["nomadserve_service"], watch.job["Meta"]["nomadserve_version"]
    if any((stub.get("DeploymentStatus") or {}).get("Healthy") for stub in running_replicas(watch)):
        return "its healthy replicas go on: `nomadserve up` with the previous file withdraws the change"
    splitter = watch.cluster.consul.entry("service-splitter", service)
    if splitter and len(splitter["Splits"]) == 1:
        return f"`nomadserve down {service}` withdraws it"
    return f"`nomadserve down {service} {version}` withdraws it"


def running_replicas(watch: Watch) -> list[dict[str, Any]]:
    """The allocations of the job as it is now, not of one of that name purged before."""
    return [stub for stub in watch.cluster.nomad.allocations(watch.job["ID"]) if stub["DesiredStatus"] == "run"]


def told_rollback(watch: Watch, failed_revision: int) -> Iterator[Event]:
    """Say so where Nomad goes back to an earlier revision of the job, which it does a moment after the failure."""
    job_id = watch.job["ID"]
    if not watch.cluster.nomad.has_stable_revision(job_id, before=failed_revision):
        return
    for _ in range(int(REVERTED_WITHIN_S / REVERT_POLL_S)):
        current = watch.cluster.nomad.job(job_id)
        if current is not None and current["Version"] > failed_revision:
            yield Note(text=f"Nomad went back to the last healthy revision of {job_id}")
            return
        time.sleep(REVERT_POLL_S)


def failure(watch: Watch, description: str) -> DeploymentFailed:
    """The failure with the last lines of the failing task's log, so that nobody needs to go and look for them."""
    message = f"`{watch.job['ID']}` did not become healthy: {description}"
    log = ""
    stubs = [stub for stub in watch.cluster.nomad.allocations(watch.job["ID"]) if stub["ID"] in watch.states]
    for stub in sorted(stubs, key=lambda stub: (stub["ClientStatus"] != "failed", -stub["CreateIndex"])):
        log = last_log_lines(watch.cluster, stub)
        if log:
            message += f"\nlast log lines of replica {stub['ID'][:8]} on {stub['NodeName']}:\n{log}"
            break
    return DeploymentFailed(message, hint=f"mend the cause and repeat `nomadserve up`; {way_back(watch)}")


def last_log_lines(cluster: Cluster, stub: dict[str, Any]) -> str:
    """The end of stderr of the first task that wrote there, indented; of none, what Nomad says of the tasks."""
    lines: list[str] = []
    for task, state in (stub["TaskStates"] or {}).items():
        if text := cluster.nomad.task_log(stub["ID"], task, stream="stderr").strip():
            lines = text.splitlines()
            break
        lines += [event["DisplayMessage"] for event in state.get("Events") or [] if event.get("DisplayMessage")]
    # Every restart of a task that can't start says the same again.
    return "\n".join(f"  | {line}" for line in list(dict.fromkeys(lines))[-LOG_LINES:])


def timed_out(watch: Watch) -> TimedOut:
    """The wait is over, the deployment is not."""
    return TimedOut(
        f"`{watch.job['ID']}` is not healthy yet; the deployment goes on",
        hint=f"`nomadserve status {watch.job['Meta']['nomadserve_service']}` shows how it fares; "
        "`--timeout` waits longer",
    )
