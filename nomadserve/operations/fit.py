"""Why a job fits on a node, or does not: what Nomad's scheduler decides but does not say.

Nomad names the resource that ran out, never which constraint of which GPU failed on which node. The scheduler is the
judge; this only explains, from the same facts: the node's devices and their attributes, and what runs there.
Source of the attributes: `plugins/devices/nvidia` of Nomad's documentation.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from nomadserve.errors import WrongInput
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.job_diff import attribute_name

Node = Mapping[str, Any]
Allocation = Mapping[str, Any]

UNITS_MIB = {"MiB": 1.0, "GiB": 1024.0, "TiB": 1024.0**2, "MB": 1e6 / 2**20, "GB": 1e9 / 2**20, "TB": 1e12 / 2**20}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One node's answer to a job. `reasons` is empty where it fits."""

    node: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.node}: {'; '.join(self.reasons) if self.reasons else 'fits'}"


def explain(
    cluster: Cluster, job: Mapping[str, Any], failed: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Verdict]:
    """Every node's answer to one replica of the job, as things are now.

    failed: `FailedTGAllocs` of Nomad's plan or evaluation; groups that are not in it are not asked about. Where no node
    says no, or we may not read nodes, Nomad's own words stand.
    """
    try:
        nodes = {node["ID"]: (node, cluster.nomad.node_allocations(node["ID"])) for node in cluster.nomad.nodes()}
    except WrongInput:  # an ACL token without the right to read nodes
        nodes = {}
    found = verdicts(job, nodes, groups=failed)
    if any(verdict.reasons for verdict in found):
        return found
    return [Verdict("Nomad says", tuple(scheduler_words(failed or {})))]


def scheduler_words(failed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the scheduler itself counted while it looked for a node."""
    words = []
    for metric in failed.values():
        counts = {**(metric.get("ConstraintFiltered") or {}), **(metric.get("DimensionExhausted") or {})}
        words += [f"{reason} on {count} node{'' if count == 1 else 's'}" for reason, count in counts.items()]
        if not metric.get("NodesEvaluated"):
            words.append("no node was looked at: is one ready in this datacenter and node pool?")
    return words or ["no node can take it"]


def verdicts(
    job: Mapping[str, Any],
    nodes: Mapping[str, tuple[Node, Sequence[Allocation]]],
    *,
    groups: Collection[str] | None = None,
) -> list[Verdict]:
    """For one replica of each group of the job: every node's answer, by the node's name.

    nodes: by node id, the node as Nomad's JSON has it and the allocations on it.
    groups: names of the groups meant; all where not given.
    """
    asked = [group for group in job["TaskGroups"] if not groups or group["Name"] in groups]
    found = [
        Verdict(node_text(node, group, job), tuple(reasons_against(job, group, node, live(allocations))))
        for group in asked
        for node, allocations in nodes.values()
    ]
    return sorted(found, key=lambda verdict: verdict.node)


def node_text(node: Node, group: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    """The node's name; with the group's, where the job has several."""
    return str(node["Name"]) if len(job["TaskGroups"]) == 1 else f"{node['Name']}, group {group['Name']}"


def live(allocations: Sequence[Allocation]) -> list[Allocation]:
    """The allocations that still hold their resources."""
    return [allocation for allocation in allocations if allocation["ClientStatus"] in {"pending", "running", "unknown"}]


def reasons_against(
    job: Mapping[str, Any], group: Mapping[str, Any], node: Node, allocations: Sequence[Allocation]
) -> list[str]:
    """All that keeps a replica of `group` off the node; empty where nothing does."""
    if node["Status"] != "ready":
        return [f"is {node['Status']}"]
    if node["SchedulingEligibility"] != "eligible":
        return ["takes no new work (drained or marked ineligible)"]
    pool = job.get("NodePool") or "default"
    if pool not in {node["NodePool"], "all"}:
        return [f"is in node pool `{node['NodePool']}`, `{pool}` is asked for"]
    if not any(fnmatchcase(node.get("Datacenter", ""), pattern) for pattern in job.get("Datacenters") or ["*"]):
        return [f"is in datacenter `{node['Datacenter']}`, {', '.join(job['Datacenters'])} is asked for"]
    if unmet := [text for constraint in group.get("Constraints") or [] if (text := node_unmet_text(constraint, node))]:
        return unmet
    task = group["Tasks"][0]
    driver = (node.get("Drivers") or {}).get(task["Driver"]) or {}
    reasons = [] if driver.get("Healthy") else [f"has no working `{task['Driver']}` driver"]
    reasons += resource_reasons(task["Resources"], node, allocations)
    for device in task["Resources"].get("Devices") or []:
        reasons += device_reasons(device, node, allocations)
    return reasons


def resource_reasons(asked: Mapping[str, Any], node: Node, allocations: Sequence[Allocation]) -> list[str]:
    """CPU and memory that the node has not free."""
    tasks = [task for each in allocations for task in (each["AllocatedResources"]["Tasks"] or {}).values()]
    own, kept = node["NodeResources"], node.get("ReservedResources") or {}
    memory_free = own["Memory"]["MemoryMB"] - (kept.get("Memory") or {}).get("MemoryMB", 0)
    memory_free -= sum(task["Memory"]["MemoryMB"] for task in tasks)
    cpu_free = own["Cpu"]["CpuShares"] - (kept.get("Cpu") or {}).get("CpuShares", 0)
    cpu_free -= sum(task["Cpu"]["CpuShares"] for task in tasks)
    reasons = []
    if asked["MemoryMB"] > memory_free:
        reasons.append(f"has {memory_free} MiB memory free, {asked['MemoryMB']} MiB is asked for")
    cores, cores_free = asked.get("Cores") or 0, free_cores(node, tasks)
    if cores > cores_free:
        reasons.append(f"has {cores_free} cores free, {cores} are asked for")
    if not cores and asked["CPU"] > cpu_free:
        reasons.append(f"has {cpu_free} MHz cpu free, {asked['CPU']} MHz is asked for")
    return reasons


def free_cores(node: Node, tasks: Sequence[Mapping[str, Any]]) -> int:
    """The whole cores that nobody has to itself."""
    reservable = node["NodeResources"]["Cpu"].get("ReservableCpuCores") or []
    taken = {core for task in tasks for core in task["Cpu"].get("ReservedCores") or []}
    return len(set(reservable) - taken)


def device_reasons(asked: Mapping[str, Any], node: Node, allocations: Sequence[Allocation]) -> list[str]:
    """Why no group of the node's devices answers the request; empty where one does."""
    groups = [group for group in node["NodeResources"].get("Devices") or [] if is_named(group, asked["Name"])]
    if not groups:
        return [f"has no `{asked['Name']}`"]
    reasons = []
    for group in groups:
        reason = group_reason(asked, group, allocations)
        if not reason:
            return []
        reasons.append(reason)
    return reasons


def is_named(group: Mapping[str, Any], name: str) -> bool:
    """Whether `gpu`, `nvidia/gpu` or `nvidia/gpu/NVIDIA L4` means this group; models may hold slashes."""
    parts = name.split("/", 2)
    wanted = {1: (group["Type"],), 2: (group["Vendor"], group["Type"])}
    return tuple(parts) == wanted.get(len(parts), (group["Vendor"], group["Type"], group["Name"]))


def group_reason(asked: Mapping[str, Any], group: Mapping[str, Any], allocations: Sequence[Allocation]) -> str:
    """Why this group of like devices does not answer the request, or an empty string."""
    healthy = {instance["ID"] for instance in group["Instances"] if instance["Healthy"]}
    what = f"{len(group['Instances'])}× {group['Name']}"
    unmet = [text for constraint in asked.get("Constraints") or [] if (text := unmet_text(constraint, group))]
    if unmet:
        return f"{what}: {', '.join(unmet)}"
    users = Counter(
        {each["JobID"]: len(healthy & used_devices(each, group)) for each in allocations if used_devices(each, group)}
    )
    free = len(healthy) - users.total()
    if free >= asked["Count"]:
        return ""
    by = f" (in use by {', '.join(f'`{job}`' for job in users)})" if users else ""
    return f"{what}: fits, but {free} of {len(healthy)} healthy ones are free{by}, {asked['Count']} asked for"


def used_devices(allocation: Allocation, group: Mapping[str, Any]) -> set[str]:
    """The ids of the group's devices that an allocation holds."""
    key = (group["Vendor"], group["Type"], group["Name"])
    held = (
        device
        for task in (allocation["AllocatedResources"]["Tasks"] or {}).values()
        for device in task.get("Devices") or []
        if (device["Vendor"], device["Type"], device["Name"]) == key
    )
    return {identity for device in held for identity in device["DeviceIDs"]}


def unmet_text(constraint: Mapping[str, Any], group: Mapping[str, Any]) -> str:
    """`memory is 22.5 GiB, >= 40 GiB asked for` where the group fails the constraint, else an empty string."""
    name, operand, wanted = attribute_name(constraint["LTarget"]), constraint["Operand"], constraint["RTarget"]
    attributes = group.get("Attributes") or {}
    if name not in {"model", "vendor", "type"} and name not in attributes:
        return f"does not say its {name}, {operand} {wanted} asked for"
    own = {"model": group["Name"], "vendor": group["Vendor"], "type": group["Type"]}.get(name) or attribute_text(
        attributes[name]
    )
    return "" if is_met(own, operand, wanted) else f"{name} is {readable(own)}, {operand} {wanted} asked for"


def node_unmet_text(constraint: Mapping[str, Any], node: Node) -> str:
    """Why a node fails a group's constraint on nodes, else an empty string: `spot` renders these, `=` and `!=`."""
    name, operand, wanted = attribute_name(constraint["LTarget"]), constraint["Operand"], constraint["RTarget"]
    own = node_attribute(constraint["LTarget"], node)
    if operand == "!=":
        return f"is a spot node ({name} is {own}), and these replicas never run on one" if own == wanted else ""
    if operand != "=" or own == wanted:
        return ""
    shown = "not set" if own is None else own
    return f"is not a spot node: {name} is {shown}, {wanted} asked for"


def node_attribute(target: str, node: Node) -> str | None:
    """What Nomad fills in for `${meta.x}`, `${attr.x}` or `${node.x}` on a node; None where it has nothing."""
    kind, _, key = target.strip("${}").partition(".")
    own = {
        "unique.id": "ID",
        "unique.name": "Name",
        "class": "NodeClass",
        "datacenter": "Datacenter",
        "pool": "NodePool",
    }
    value = {
        "meta": (node.get("Meta") or {}).get(key),
        "attr": (node.get("Attributes") or {}).get(key),
        "node": node.get(own.get(key, "")),
    }.get(kind)
    return None if value is None else str(value)


def attribute_text(attribute: Mapping[str, Any]) -> str:
    """An attribute of Nomad's (one of String, Int, Float, Bool; perhaps Unit) as text: `81920 MiB`."""
    value = next((attribute[key] for key in ("String", "Int", "Float", "Bool") if attribute.get(key) is not None), "")
    unit = attribute.get("Unit") or ""
    return f"{value} {unit}".strip()


def readable(value: str) -> str:
    """MiB in the thousands as GiB: `81920 MiB` → `80 GiB`."""
    number = in_mib(value)
    return f"{number / 1024:.4g} GiB" if number is not None and number >= 1024 else value


def is_met(own: str, operand: str, wanted: str) -> bool:
    """Whether a device's attribute meets a condition, by the operators that nomadserve renders."""
    if operand == "regexp":
        return re.search(wanted, own) is not None
    if operand in {"version", "semver"}:
        return all(is_ordered(own, *split_condition(part)) for part in wanted.split(","))
    return is_ordered(own, operand, wanted)


def split_condition(condition: str) -> tuple[str, str]:
    """`>= 550.54` → (`>=`, `550.54`); no operator means equality."""
    match = re.fullmatch(r"\s*(>=|<=|!=|~>|>|<|=|)\s*(.+?)\s*", condition)
    assert match is not None, "every text matches: the operator may be empty"
    return match[1] or "=", match[2]


def is_ordered(own: str, operand: str, wanted: str) -> bool:
    """Compare two values: as memory, else as dotted numbers, else as text."""
    if operand == "~>":
        return is_ordered(own, ">=", wanted) and own.split(".")[: wanted.count(".")] == wanted.split(".")[:-1]
    left, right = comparable(own), comparable(wanted)
    if isinstance(left, tuple) and isinstance(right, tuple):
        length = max(len(left), len(right))
        left, right = ((*parts, *[0] * (length - len(parts))) for parts in (left, right))
    if type(left) is not type(right):
        left, right = own, wanted
    comparison: dict[str, bool] = {
        ">=": left >= right,  # type: ignore[operator]  # both are of one type: checked above
        ">": left > right,  # type: ignore[operator]
        "<=": left <= right,  # type: ignore[operator]
        "<": left < right,  # type: ignore[operator]
        "!=": left != right,
    }
    return comparison.get(operand, left == right)


def comparable(value: str) -> float | tuple[int, ...] | str:
    """Memory in MiB, dotted numbers as a tuple, anything else as it is."""
    mib = in_mib(value)
    if mib is not None:
        return mib
    return tuple(int(part) for part in value.split(".")) if re.fullmatch(r"\d+(\.\d+)*", value) else value


def in_mib(value: str) -> float | None:
    """`40 GiB` → 40960.0; None where it is no amount of memory."""
    match = re.fullmatch(r"([\d.]+)\s*([MGT]i?B)", value)
    return float(match[1]) * UNITS_MIB[match[2]] if match else None
