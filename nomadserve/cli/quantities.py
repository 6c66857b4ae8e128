"""Options with units, as click converts them: a time as the service file writes it, a share in percent."""

import click

from nomadserve.spec import Mebibytes, Seconds


def time(value: str) -> Seconds:
    """`250ms`, `8s`, `24h`."""
    try:
        return Seconds.parse(value)
    except ValueError:
        raise click.BadParameter(f"`{value}` is not {Seconds.expected}; write it as `{Seconds.like(value)}`") from None


def percent(value: str) -> float:
    """`1%`; becomes a share from 0 to 1."""
    try:
        share = float(value.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not value.endswith("%") or not 0 <= share <= 1:
        raise click.BadParameter(f"`{value}` is no share in percent; write it as `1%`")
    return share


def numbers(value: str) -> tuple[int, ...]:
    """`1,2,4`."""
    found = [part.strip() for part in value.split(",")]
    if not all(number.isdecimal() and int(number) > 0 for number in found):
        raise click.BadParameter(f"`{value}` is no list of numbers; write it as `1,2,4`")
    return tuple(map(int, found))


def mebibytes(value: str) -> Mebibytes:
    """`4 GiB`, as the service file writes it."""
    try:
        return Mebibytes.parse(value)
    except ValueError:
        raise click.BadParameter(f"`{value}` is not {Mebibytes.expected}; write it as `4 GiB`") from None
