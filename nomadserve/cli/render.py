"""`nomadserve render`."""

from pathlib import Path

import click

from nomadserve.cli import output
from nomadserve.cli.service_file import read_service, service_file_options
from nomadserve.render import render_job


@click.command()
@service_file_options
def command(file: Path, variables: tuple[str, ...], var_files: tuple[Path, ...]) -> None:
    """Print the Nomad job that FILE becomes. Needs no cluster."""
    output.emit(render_job(read_service(file, variables, var_files)).rstrip("\n"))
