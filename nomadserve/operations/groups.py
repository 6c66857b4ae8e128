"""A version's job may have two groups of replicas: the scaled one, and one that never runs on spot nodes. Pure.

The scaled one comes first. People and queries count the replicas of both together; the Autoscaler those of the first.
"""

from collections.abc import Mapping
from typing import Any


def counts(job: Mapping[str, Any]) -> dict[str, int]:
    """The wanted replicas of every group of a job, as Nomad's JSON has it."""
    return {group["Name"]: group["Count"] for group in job["TaskGroups"]}


def total(job: Mapping[str, Any]) -> int:
    """The wanted replicas of the whole version."""
    return sum(group["Count"] for group in job["TaskGroups"])


def fixed(job: Mapping[str, Any]) -> int:
    """Those of them that are not in the scaled group."""
    return sum(group["Count"] for group in job["TaskGroups"][1:])


def set_total(job: Mapping[str, Any], count: int) -> None:
    """Give a rendered job so many replicas in all, by its scaled group."""
    job["TaskGroups"][0]["Count"] = max(count - fixed(job), 0)
