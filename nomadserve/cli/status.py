"""`nomadserve status`."""

import sys

import click
from rich.console import Console
from rich.table import Table

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
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("version", "weight", "state", "replicas"):
        table.add_column(name)
    for version in status.versions:
        table.add_row(
            version.version,
            f"{version.weight:g} %",
            f"[{STYLES.get(version.state, 'default')}]{version.state}[/]",
            f"{version.replicas_healthy}/{version.replicas_wanted}",
        )
        for replica in version.replicas if with_replicas else ():
            table.add_row("", "", "", f"{replica.allocation} on {replica.node}: {replica.state}")
    Console(file=sys.stdout, highlight=False).print(table)
    if with_replicas and status.changes:
        output.emit(f"last change: {status.changes[-1]}")
