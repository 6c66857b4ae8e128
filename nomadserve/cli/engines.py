"""`nomadserve engines`: install and list the real parts."""

from collections.abc import Iterable

import click

from nomadserve.cli import output
from nomadserve.cli.working import Working
from nomadserve.engines.catalogue import ENGINES, Engine
from nomadserve.engines.find import find
from nomadserve.engines.install import ensure
from nomadserve.engines.platforms import need_linux


@click.group("engines")
def command() -> None:
    """Install and list Nomad, Consul, Envoy, the Autoscaler and Prometheus."""
    need_linux()


@command.command("install")
@click.argument("names", nargs=-1, type=click.Choice(list(ENGINES)), metavar="[NAME]…")
@click.option("--all", "everything", is_flag=True, help="the Autoscaler and Prometheus too")
def install(names: tuple[str, ...], everything: bool) -> None:
    """Bring engines that are missing: all that a cluster needs, or those named."""
    wanted = _wanted(names, everything)
    before = {engine.name for engine in wanted if find(engine) is not None}
    with Working() as progress:
        found = ensure(wanted, progress)
    for name in (name for name in found if name in before):
        output.say(f"{name} {found[name].version} is there already: {found[name].path}")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="print JSON on stdout")
def list_engines(as_json: bool) -> None:
    """List what is used, its version, and from where it came."""
    rows = [_row(engine) for engine in ENGINES.values()]
    if as_json:
        output.emit_json(rows)
        return
    for row in rows:
        if row["path"] is None:
            output.emit(f"{row['name']:<11} {'—':<9} not installed: `nomadserve engines install {row['name']}`")
        else:
            output.emit(f"{row['name']:<11} {row['version']:<9} {row['path']}  ({row['origin']})")


def _wanted(names: Iterable[str], everything: bool) -> list[Engine]:
    asked = set(names)
    if asked and not everything:
        return [engine for engine in ENGINES.values() if engine.name in asked]
    return [engine for engine in ENGINES.values() if everything or engine.by_default]


def _row(engine: Engine) -> dict[str, str | None]:
    found = find(engine)
    if found is None:
        return {"name": engine.name, "version": None, "path": None, "origin": None}
    return {"name": engine.name, "version": str(found.version), "path": str(found.path), "origin": found.origin}
