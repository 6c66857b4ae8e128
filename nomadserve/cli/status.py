"""`nomadserve status`."""

import sys

import click
from rich.console import Console
from rich.text import Text

from nomadserve.cli import output
from nomadserve.operations.cluster import cluster_from
from nomadserve.operations.status import ServiceStatus, services_status

STYLES = {"healthy": "green", "degraded": "yellow", "starting": "yellow", "no room": "red", "failed": "red"}


@click.command()
@click.argument("service", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
def command(service: str | None, as_json: bool) -> None:
    """Show versions, weights, health and replicas of SERVICE, or of all services."""
    with cluster_from() as cluster:
        found = services_status(cluster, service)
    if as_json:
        output.emit_json(found)
        return
    if not found:
        output.say("no services yet")
        output.hint("`nomadserve up service.hcl.j2` deploys one")
    for each in found:
        show(each, with_replicas=service is not None)


def show(status: ServiceStatus, *, with_replicas: bool) -> None:
    """One service as a table on stdout."""
    gateways = f"{status.gateways_healthy} healthy gateway{'' if status.gateways_healthy == 1 else 's'}"
    output.emit(f"{status.service}  http://{status.address}  ({gateways})")
    rows = [("version", "weight", "state", "replicas")]
    for version in status.versions:
        counts = f"{version.replicas_healthy}/{version.replicas_wanted}"
        if version.state == "asleep":
            counts += "  (wakes on a request)"
        rows.append((version.version, f"{version.weight:g} %", version.state, counts))
        if with_replicas:
            replicas = (f"{each.allocation} on {each.node}: {each.state}" for each in version.replicas)
            rows += [("", "", "", replica) for replica in replicas]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    for row in rows:
        line = "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        text = Text(line.rstrip())
        text.highlight_words([row[2]] if row[2] in STYLES else [], STYLES.get(row[2], ""))
        console.print(text)
    if with_replicas and status.changes:
        output.emit(f"last change: {status.changes[-1]}")
