"""`nomadserve call`."""

import sys
from pathlib import Path

import click

from nomadserve.cli import output
from nomadserve.operations.call import call


@click.command()
@click.argument("service")
@click.argument("data", required=False)
@click.option("--version", help="Ask this version, whatever the weights; another's answer is an error.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=30,
    show_default=True,
    help="Seconds to wait.",
)
def command(service: str, data: str | None, version: str | None, timeout_s: float) -> int:
    """Send one request to SERVICE by its Consul DNS name and print the reply.

    DATA is the JSON body, `@FILE` for a file's, `-` for standard input: `nomadserve call digits @request.json`.

    Exits with 0 where the answer is 200.
    """
    answer = call(service, body_of(data), version=version, timeout_s=timeout_s, on_wait=tell_wait)
    by = f" by {service} {answer.version}" if answer.version else ""
    output.say(
        f"{answer.status}{by} at {answer.endpoint.address}:{answer.endpoint.port} in {answer.seconds * 1e3:.1f} ms"
    )
    output.emit(answer.body.rstrip("\n"))
    return 0 if answer.status == 200 else 1


def tell_wait(seconds: float, why: str) -> None:
    """Say why nothing happens for a while."""
    output.say(f"{why}: asking again in {seconds:g} s")


def body_of(data: str | None) -> bytes:
    """The request body that DATA means."""
    if data is None:
        raise click.UsageError("give DATA: JSON, `@FILE`, or `-` for standard input")
    if data == "-":
        return sys.stdin.buffer.read()
    if data.startswith("@"):
        try:
            return Path(data[1:]).read_bytes()
        except OSError as error:
            raise click.UsageError(f"can't read `{data[1:]}`: {error.strerror}") from error
    return data.encode()
