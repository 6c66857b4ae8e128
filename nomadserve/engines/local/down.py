"""Takes a local cluster down, from any state it may be in, and leaves nothing of it."""

import re
import shutil
import subprocess
from pathlib import Path

import psutil

from nomadserve.engines.local import api, processes
from nomadserve.engines.local.record import Cluster, Home, is_inside
from nomadserve.engines.local.waiting import wait_until
from nomadserve.engines.progress import Progress
from nomadserve.errors import NomadserveError, TimedOut

JOBS_TIMEOUT_S = 60.0  # a replica may take 3 s to leave Consul and 30 s to finish its requests
TASK_GRACE_S = 10.0  # for tasks that nobody manages any more
AGENT_GRACE_S = 15.0
REMOVED_JOB_STATES = ("complete", "failed", "lost")


def bring_down(name: str, progress: Progress) -> bool:
    """End every process of the cluster and remove its files; False where there was nothing to end or remove.

    Raises:
        NomadserveError: a process or a mount could not be ended; calling again goes on from there.
    """
    home = Home(name)
    with home.locked(progress):
        if not home.folder.exists() and not processes.members(home):
            return False
        take_down(home, progress)
    return True


def take_down(home: Home, progress: Progress) -> None:
    """The work of `bring_down`, for callers that hold the lock.

    Ending Nomad does not end its tasks, so jobs end first. Where no Nomad answers, the tasks are found by the
    cluster's mark; the agents and Nomad's executors are ended after them, Consul last.
    """
    cluster = home.read()
    if cluster is not None and processes.find_agent(home, home.nomad_config) is not None:
        _stop_jobs(cluster, progress)
    processes.end(_tasks(home), grace_s=TASK_GRACE_S)
    progress.say("ending Nomad and Consul")
    for config in (home.nomad_config, home.consul_config):
        if (agent := processes.find_agent(home, config)) is not None:
            processes.end([agent], grace_s=AGENT_GRACE_S)
    _end_remaining(home)
    unmount_below(home.folder)
    if home.folder.exists():
        shutil.rmtree(home.folder)


def _stop_jobs(cluster: Cluster, progress: Progress) -> None:
    """Purge all jobs and wait until their allocations ended; what can't be stopped so is left to the sweep."""
    try:
        jobs = api.jobs(cluster)
        if jobs:
            progress.say(
                f"stopping {len(jobs)} job{'s' if len(jobs) > 1 else ''}: {', '.join(job['ID'] for job in jobs)}"
            )
        for job in jobs:
            api.purge_job(cluster, job)
        wait_until(
            lambda: all(alloc["ClientStatus"] in REMOVED_JOB_STATES for alloc in api.allocations(cluster)),
            what="the end of all allocations",
            timeout_s=JOBS_TIMEOUT_S,
        )
    except TimedOut as error:
        progress.say(f"{error.message}: ending their processes")
    except NomadserveError as error:
        progress.say(f"Nomad can't stop the jobs ({error.message}): ending their processes")


def _tasks(home: Home) -> list[psutil.Process]:
    return [process for process in processes.members(home) if not processes.is_support(process)]


def _end_remaining(home: Home) -> None:
    """A process may start another while it is being ended: look again until nobody is left."""
    for _ in range(5):
        remaining = processes.members(home)
        if not remaining:
            return
        processes.end(remaining, grace_s=2.0)
    if remaining := processes.members(home):
        pids = ", ".join(str(process.pid) for process in remaining)
        raise NomadserveError(f"processes of cluster `{home.name}` can't be ended: {pids}", hint="try `dev down` again")


def unmount_below(folder: Path) -> None:
    """Take off every mount below `folder`, the innermost first; Nomad as root mounts tasks' secrets folders.

    Raises:
        NomadserveError: one is in use, or was made by root and we are not.
    """
    for mount in mounts_below(folder):
        done = subprocess.run(["umount", str(mount)], capture_output=True, text=True, check=False)
        if done.returncode != 0 and mount in mounts_below(folder):
            raise NomadserveError(
                f"can't unmount {mount}: {done.stderr.strip()}",
                hint=f"as root: `umount -l {mount}`, then `dev down` again",
            )


def mounts_below(folder: Path) -> list[Path]:
    """Mount points at or below `folder`, innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    # The kernel writes blanks, tabs, newlines and backslashes of paths as octal numbers.
    paths = [Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[4])) for line in lines]
    return sorted((path for path in paths if is_inside(path, folder)), key=lambda path: -len(path.parts))
