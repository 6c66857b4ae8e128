"""`nomadserve up`."""

import sys
from pathlib import Path

import click

from nomadserve.cli import output
from nomadserve.cli.plan import plan_lines
from nomadserve.cli.progress import tell
from nomadserve.cli.service_file import read_service, service_file_options
from nomadserve.operations.cluster import Cluster, cluster_from
from nomadserve.operations.plan import Plan, make_plan
from nomadserve.operations.up import up
from nomadserve.spec import Service

INTERRUPTED = 130
PATIENCE_S = 900.0


@click.command()
@service_file_options
@click.option("--detach", is_flag=True, help="Return once the job is registered.")
@click.option("--yes", is_flag=True, help="Don't ask before running replicas are replaced.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to follow it for: 900, or longer where a plan of TensorRT is built first.",
)
@click.option("--json", "as_json", is_flag=True, help="Report each step as a line of JSON on stdout.")
def command(
    file: Path,
    variables: tuple[str, ...],
    var_files: tuple[Path, ...],
    detach: bool,
    yes: bool,
    timeout_s: float | None,
    as_json: bool,
) -> int:
    """Deploy the version that FILE describes, and follow it until healthy.

    The first version of a service gets all its traffic, a later one none until you `split`. Running it again changes
    only what the file changes. Ctrl-C stops following, not the deployment.

    Exits with 0 when healthy, 1 when it failed, 2 on wrong input, 3 when the wait ended, 4 when no node has room.
    """
    service = read_service(file, variables, var_files)
    with cluster_from() as everywhere:
        cluster = everywhere.at(namespace=service.namespace, region=service.region)
        plan = make_plan(cluster, service)
        if not plan.is_empty and not as_json:
            for line in plan_lines(plan):
                output.say(line)
        if plan.replaces_running and not yes and sys.stdin.isatty() and sys.stderr.isatty():
            click.confirm("replace the running replicas?", default=True, abort=True, err=True)
        try:
            tell(up(cluster, plan, is_detached=detach, timeout_s=timeout_s or patience_s(service)), as_json=as_json)
        except KeyboardInterrupt:
            if plan.job_lines and not is_registered(cluster, plan):
                raise
            output.say(f"detached: Nomad goes on with {service.job_id}")
            output.hint(f"`nomadserve status {service.name}` shows how it fares; the same `up` follows it again")
            return INTERRUPTED
    return 0


def patience_s(service: Service) -> float:
    """How long to follow a deployment where nothing else is asked for: no shorter than a first build may take."""
    return max(PATIENCE_S, service.progress_deadline if service.built else 0.0)


def is_registered(cluster: Cluster, plan: Plan) -> bool:
    """Whether Nomad has taken the plan's job, or a later one."""
    current = cluster.nomad.job(plan.job["ID"])
    return current is not None and int(current["JobModifyIndex"]) > plan.modify_index
