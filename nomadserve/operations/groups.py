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


def bridge(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any] | None:
    """The job in between, where replicas move from one group to another; None where none do.

    Each group has the more of what it had and will have: Nomad stops what is too many in one group at once, and does
    not wait for the successors in the other.
    """
    former = {group["Name"]: group for group in before["TaskGroups"]}
    had, wanted = counts(before), counts(after)
    names = {*had, *wanted}
    if not any(had.get(name, 0) < wanted.get(name, 0) for name in names):
        return None
    if not any(had.get(name, 0) > wanted.get(name, 0) for name in names):
        return None
    wider = [widened(group, max(group["Count"], had.get(group["Name"], 0))) for group in after["TaskGroups"]]
    return {**after, "TaskGroups": [*wider, *(group for name, group in former.items() if name not in wanted)]}


def widened(group: Mapping[str, Any], count: int) -> dict[str, Any]:
    """A group with so many replicas, whose `max` allows for them."""
    found = {**group, "Count": count}
    if scaling := group.get("Scaling"):
        found["Scaling"] = scaling | {"Max": max(scaling["Max"], count)}
    return found
