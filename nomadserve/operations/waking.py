"""Versions that may sleep (`min = 0`): whether one does, and how long it takes to come back."""

import math
from collections.abc import Iterable
from datetime import datetime

from nomadserve import entries
from nomadserve.entries import Waking
from nomadserve.nomad_api import Job
from nomadserve.operations import groups
from nomadserve.operations.cluster import Cluster
from nomadserve.spec import Service

STARTUP_GUESS_S = 60.0  # until a first replica was seen to get healthy
NOTICE_S = 3.0  # a scrape of the gateway, and placing the replica
# Two starts of one model are never alike: a start-up that differs less than this is no news.
NEWS_SHARE = 0.25
NEWS_S = 2.0


def is_asleep(job: Job | None) -> bool:
    """Whether a registered job has no replica and gets one with the next request."""
    if job is None or job["Stop"]:
        return False
    scaling = job["TaskGroups"][0].get("Scaling") or {}
    return groups.total(job) == 0 and scaling.get("Min") == 0 and bool(scaling.get("Enabled", True))


def wakings_of(cluster: Cluster, service: str, versions: Iterable[str]) -> dict[str, Waking]:
    """How each of the versions that may sleep comes back, as their resolvers have it."""
    found = {
        version: entries.waking_of(cluster.consul.entry("service-resolver", f"{service}-{version}"))
        for version in versions
    }
    return {version: waking for version, waking in found.items() if waking}


def wanted_waking(service: Service, before: Waking | None, *, startup_s: float | None = None) -> Waking | None:
    """How the version shall come back, by its file; None where it never sleeps.

    before: as it is written now.  startup_s: as just measured.
    """
    scaling = service.scaling
    if scaling is None or not scaling.sleeps:
        return None
    known_s = before.startup_s if before else STARTUP_GUESS_S
    if startup_s is not None and abs(startup_s - known_s) > max(NEWS_S, NEWS_SHARE * known_s):
        known_s = startup_s
    return Waking(startup_s=known_s, notice_s=scaling.evaluated_every + NOTICE_S, hold_s=float(scaling.hold))


def measured_startup_s(cluster: Cluster, job_id: str) -> float | None:
    """Seconds that the job's newest healthy replica took from its placement until it was healthy; None without one.

    Nomad calls a replica healthy only after `min_healthy_time`, and the gateway uses it before: never less than real.
    """
    healthy = [
        stub for stub in cluster.nomad.allocations(job_id) if (stub.get("DeploymentStatus") or {}).get("Healthy")
    ]
    if not healthy:
        return None
    newest = healthy[-1]
    at = datetime.fromisoformat(newest["DeploymentStatus"]["Timestamp"]).timestamp()
    return float(max(1, math.ceil(at - newest["CreateTime"] / 1e9)))
