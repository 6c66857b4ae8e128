"""The arguments of every verb that reads a service file."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nomadserve.language import collect_variables, load_service
from nomadserve.spec import Service

Command = TypeVar("Command", bound=Callable[..., Any])


def service_file_options(command: Command) -> Command:
    """FILE, `--var` and `--var-file`."""
    for option in (
        click.option(
            "--var-file",
            "var_files",
            multiple=True,
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help='A file of variables: `name = "value"` lines, or .json. May be repeated.',
        ),
        click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="A variable. May be repeated."),
        click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    ):
        command = option(command)
    return command


def read_service(file: Path, variables: tuple[str, ...], var_files: tuple[Path, ...]) -> Service:
    """The service that the file describes; `NOMADSERVE_VAR_name` variables count too."""
    return load_service(file, collect_variables(variables, var_files, os.environ))
