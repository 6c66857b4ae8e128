"""`nomadserve down`."""

import sys

import click

from nomadserve.cli.progress import tell
from nomadserve.errors import WrongInput
from nomadserve.operations.cluster import cluster_from
from nomadserve.operations.down import down_service, down_version


@click.command()
@click.argument("service")
@click.argument("version", required=False)
@click.option("--yes", is_flag=True, help="Take a whole service away without asking; needed where nobody can answer.")
@click.option("--json", "as_json", is_flag=True, help="Report each step as a line of JSON on stdout.")
def command(service: str, version: str | None, yes: bool, as_json: bool) -> None:
    """Stop VERSION of SERVICE, which must have no traffic; without VERSION, the service and all its versions."""
    with cluster_from() as cluster:
        if version:
            tell(down_version(cluster, service, version), as_json=as_json)
            return
        if not yes:
            confirm_on_terminal(f"take {service} and all its versions away?")
        tell(down_service(cluster, service), as_json=as_json)


def confirm_on_terminal(question: str) -> None:
    """Ask; where there is no terminal to ask on, refuse rather than guess."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise WrongInput("a whole service is taken away only with a yes", hint="add `--yes`")
    click.confirm(question, abort=True, err=True)
