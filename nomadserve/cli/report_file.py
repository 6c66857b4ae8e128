"""`--report` and `--no-report`, of every verb that draws."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nomadserve.cli import output
from nomadserve.errors import NomadserveError

Command = TypeVar("Command", bound=Callable[..., Any])


def report_options(default: str) -> Callable[[Command], Command]:
    """Adds both; the verb gets `report_file`, empty where no report is wished for."""

    def add(command: Command) -> Command:
        for option in (
            click.option("--no-report", "report_file", flag_value="", help="Write no HTML report."),
            click.option("--report", "report_file", default=default, show_default=True, help="The HTML report."),
        ):
            command = option(command)
        return command

    return add


def write_report(file: str, text: Callable[[], str]) -> None:
    """Write what `text` gives to the file; with an empty name do nothing.

    Raises:
        NomadserveError: it can't be written there.
    """
    if not file:
        return
    try:
        Path(file).write_text(text(), encoding="utf-8")
    except OSError as error:
        message = f"can't write `{file}`: {error.strerror}"
        raise NomadserveError(message, hint="name another: `--report FILE`") from error
    output.say(f"report: {file}")
