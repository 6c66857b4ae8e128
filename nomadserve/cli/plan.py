"""`nomadserve plan`, and how a plan is shown."""

import json
from pathlib import Path
from typing import Any

import click

from nomadserve.cli import output
from nomadserve.cli.service_file import read_service, service_file_options
from nomadserve.errors import BlockedOnCapacity
from nomadserve.operations.cluster import cluster_from
from nomadserve.operations.plan import Plan, make_plan
from nomadserve.operations.traffic import EntryChange

MARKS = {"create": "+", "update": "~", "delete": "-"}


@click.command()
@service_file_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(file: Path, variables: tuple[str, ...], var_files: tuple[Path, ...], as_json: bool) -> int:
    """Show what `up` would change, and change nothing.

    Exits with 0 where all of it can be placed, with 4 where no node has room.
    """
    service = read_service(file, variables, var_files)
    with cluster_from() as cluster:
        plan = make_plan(cluster.at(namespace=service.namespace, region=service.region), service)
    if as_json:
        output.emit_json(plan_data(plan))
    else:
        for line in plan_lines(plan):
            output.emit(line)
    return 0 if plan.has_room else BlockedOnCapacity.exit_code


def plan_lines(plan: Plan) -> list[str]:
    """The plan for people: job, replicas, traffic, and what does not fit."""
    if plan.is_empty:
        return [f"nothing to change: {plan.service.job_id} is as the file says"]
    lines = [*plan.job_lines, *(f"    {line}" for line in plan.replica_lines)]
    lines += [f"~ {plan.service.name}: {change}" for change in plan.share_changes]
    lines += [line for change in plan.entry_changes for line in entry_lines(change)]
    if plan.changes_routes:
        lines.append(f"~ service-router nomadserve: the routes of {plan.service.name}")
    if not plan.is_named:
        lines.append(f"+ {plan.service.name}.service.consul names the gateway")
    if plan.warnings:
        lines += ["", "Nomad warns:", *(f"    {line}" for line in plan.warnings.strip().splitlines())]
    lines += [f"note: {note}" for note in plan.notes]
    if not plan.has_room:
        lines += ["", "no node has room for a replica now:", *(f"    {verdict}" for verdict in plan.unplaced)]
    return lines


def entry_lines(change: EntryChange) -> list[str]:
    """One config entry's change, key by key."""
    lines = [f"{MARKS[change.action]} {change.kind} {change.name}"]
    before, after = change.before or {}, change.after or {}
    for key in after:
        if key in {"Kind", "Name", "Meta"} or before.get(key) == after[key]:
            continue
        old = f"{shown(before[key])} → " if before.get(key) else ""
        lines.append(f"    {key}: {old}{shown(after[key])}")
    return lines


def shown(value: Any) -> str:
    """An entry's value in one line; weights and failovers as the lists of versions that they are."""
    match value:
        case [{"Service": _}, *_]:
            return " ".join(f"{split['Service']}={split.get('Weight', 0):g}" for split in value)
        case {"*": {"Targets": targets}}:
            return ", then ".join(target["Service"] for target in targets)
    return value if isinstance(value, str) else json.dumps(value)


def plan_data(plan: Plan) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "job_id": plan.service.job_id,
        "is_empty": plan.is_empty,
        "replaces_running": plan.replaces_running,
        "job": plan.job_lines,
        "replicas": plan.replica_lines,
        "entries": [
            {"action": change.action, "kind": change.kind, "name": change.name, "after": change.after}
            for change in plan.entry_changes
        ],
        "shares": [
            {"version": change.version, "before": change.before, "after": change.after} for change in plan.share_changes
        ],
        "routes": plan.routes if plan.changes_routes else [],
        "has_room": plan.has_room,
        "unplaced": [{"node": verdict.node, "reasons": verdict.reasons} for verdict in plan.unplaced],
        "warnings": plan.warnings,
        "notes": plan.notes,
    }
