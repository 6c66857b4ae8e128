"""Follow a registered job until its deployment is healthy, has failed, or waits for room."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nomadserve.errors import BlockedOnCapacity, NomadserveError, TimedOut
from nomadserve.nomad_api import Job
from nomadserve.operations import fit
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.events import DeploymentProgress, Event, Note, ReplicaChanged

LOG_LINES = 15
# Nomad's deployment watcher reverts as soon as it sees the failure; without `auto_revert` it never does.
REVERTED_WITHIN_S = 3.0
REVERT_POLL_S = 0.2
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
        DeploymentFailed: a replica failed, or the deployment did.
        TimedOut: none of that within `timeout_s`; the deployment goes on.
    """
    watch = Watch(cluster, job, time.monotonic() + timeout_s)
    deployment_id = started_deployment(watch, evaluation_id) if evaluation_id else newest_deployment(watch)
    if deployment_id is None:
        # A change without a deployment (counts, checks): Nomad has done it when the evaluation is complete.
        yield from news(watch, None)
        return
    index = 0
    while True:
        deployment, index = cluster.nomad.deployment(deployment_id, index=index)
        yield from news(watch, deployment)
        raise_if_blocked(watch)
        if deployment["Status"] == "successful":
            return
        if deployment["Status"] in TERMINAL:
            yield from told_rollback(watch, deployment["JobVersion"])
            raise failure(watch, deployment["StatusDescription"])
        if has_failed_replica(watch, deployment_id):
            # Nomad would try again until the progress deadline; whoever waits here wants to know now.
            cluster.nomad.fail_deployment(deployment_id)
            yield from told_rollback(watch, deployment["JobVersion"])
            raise failure(watch, "a replica failed")
        if not watch.remaining_s():
            raise timed_out(watch)


def started_deployment(watch: Watch, evaluation_id: str) -> str | None:
    """The deployment that an evaluation made, once the scheduler is through with it."""
    index = 0
    while watch.remaining_s():
        evaluation, index = watch.cluster.nomad.evaluation(evaluation_id, index=index)
        if evaluation["Status"] in {"complete", "failed", "canceled"}:
            raise_if_blocked(watch)
            return evaluation.get("DeploymentID") or newest_deployment(watch)
    raise timed_out(watch)


def newest_deployment(watch: Watch) -> str | None:
    """The newest deployment of the job as it is registered now, or None."""
    deployment = watch.cluster.nomad.latest_deployment(watch.job["ID"])
    current = watch.cluster.nomad.job(watch.job["ID"])
    if deployment is None or current is None or deployment["JobCreateIndex"] != current["CreateIndex"]:
        return None
    return str(deployment["ID"])


def news(watch: Watch, deployment: dict[str, Any] | None) -> Iterator[Event]:
    """Replicas and counts that changed since they were last told."""
    placed = (
        watch.cluster.nomad.deployment_allocations(deployment["ID"])
        if deployment is not None
        else running_replicas(watch)
    )
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
    if stub["ClientStatus"] == "pending":
        return "starting"
    restarts = sum(task.get("Restarts", 0) for task in (stub["TaskStates"] or {}).values())
    suffix = f" (restarted {restarts}×)" if restarts else ""
    if stub["ClientStatus"] != "running":
        return f"{stub['ClientStatus']}{suffix}"
    health = (stub.get("DeploymentStatus") or {}).get("Healthy")
    words = {True: "healthy", False: "unhealthy", None: "running, not healthy yet"}
    return words[health] + suffix


def raise_if_blocked(watch: Watch) -> None:
    """Say which nodes refuse a replica, and why, where the scheduler found no room."""
    if not watch.cluster.nomad.blocked_placements(watch.job["ID"]):
        return
    placed = sum(stub["ClientStatus"] in {"pending", "running"} for stub in running_replicas(watch))
    wanted = watch.job["TaskGroups"][0]["Count"]
    raise BlockedOnCapacity(
        no_room_text(watch.job["ID"], fit.explain(watch.cluster, watch.job), placed=placed, wanted=wanted),
        hint=f"the job stays registered and starts as soon as a node has room; {withdraw_text(watch.job)} withdraws it",
    )


def no_room_text(job_id: str, verdicts: list[fit.Verdict], *, placed: int, wanted: int) -> str:
    """What a user reads when the cluster is full or lacks what is asked for."""
    lines = [f"no node has room for `{job_id}`: {placed} of {wanted} replicas placed"]
    return "\n".join([*lines, *(f"  {verdict}" for verdict in verdicts)])


def withdraw_text(job: Job) -> str:
    """The command that takes this version away."""
    return f"`nomadserve down {job['Meta']['nomadserve_service']} {job['Meta']['nomadserve_version']}`"


def running_replicas(watch: Watch) -> list[dict[str, Any]]:
    """The allocations of the job as it is now, not of one of that name purged before."""
    return [stub for stub in watch.cluster.nomad.allocations(watch.job["ID"]) if stub["DesiredStatus"] == "run"]


def has_failed_replica(watch: Watch, deployment_id: str) -> bool:
    """Whether a replica of this deployment failed for good: its restarts are used up."""
    own = watch.cluster.nomad.deployment_allocations(deployment_id)
    return any(stub["ClientStatus"] == "failed" for stub in own)


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
    return DeploymentFailed(
        message, hint=f"mend the cause and repeat `nomadserve up`; {withdraw_text(watch.job)} withdraws this version"
    )


def last_log_lines(cluster: Cluster, stub: dict[str, Any]) -> str:
    """The end of stderr of the replica's first task, indented; where that is empty, what Nomad says of the task."""
    for task, state in (stub["TaskStates"] or {}).items():
        text = cluster.nomad.task_log(stub["ID"], task, stream="stderr").strip()
        events = [event["DisplayMessage"] for event in state.get("Events") or [] if event.get("DisplayMessage")]
        lines = text.splitlines() or events
        return "\n".join(f"  | {line}" for line in lines[-LOG_LINES:])
    return ""


def timed_out(watch: Watch) -> TimedOut:
    """The wait is over, the deployment is not."""
    return TimedOut(
        f"`{watch.job['ID']}` is not healthy yet; the deployment goes on",
        hint=f"`nomadserve status {watch.job['Meta']['nomadserve_service']}` shows how it fares; "
        "`--timeout` waits longer",
    )
