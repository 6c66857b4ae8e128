"""`nomadserve dev`: a real cluster on this machine."""

import os
import shlex
import shutil
from pathlib import Path

import click

from nomadserve.cli import output
from nomadserve.cli.working import Working
from nomadserve.engines.local import health
from nomadserve.engines.local.down import bring_down
from nomadserve.engines.local.record import Cluster, known_names, read_cluster
from nomadserve.engines.local.up import bring_up
from nomadserve.engines.platforms import need_linux
from nomadserve.errors import NomadserveError

name_option = click.option("--name", default="default", show_default=True, help="which local cluster")
json_option = click.option("--json", "as_json", is_flag=True, help="print JSON on stdout")


@click.group("dev")
def command() -> None:
    """Run a real Consul, Nomad and gateway on loopback, without root."""
    need_linux()


@command.command("up")
@name_option
@click.option(
    "--port-offset", type=int, help="added to every well-known port; default: 0, or the next one that is free"
)
@click.option(
    "--nomad-config",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="a further configuration file of the Nomad agent; may be repeated",
)
def up(name: str, port_offset: int | None, nomad_config: tuple[Path, ...]) -> None:
    """Start a cluster, or what is missing of it; installs missing engines first."""
    with Working() as progress:
        cluster, was_up = bring_up(name, offset=port_offset, nomad_config=nomad_config, progress=progress)
    output.say(f"cluster `{name}` is already up" if was_up else f"cluster `{name}` is up")
    _say_links(cluster)


@command.command("env")
@name_option
def env(name: str) -> None:
    """Print `export` lines for `eval "$(nomadserve dev env)"`."""
    cluster = read_cluster(name)
    for key, value in cluster.environment().items():
        output.emit(f"export {key}={value}")
    if folders := missing_on_path(cluster):
        output.emit(f'export PATH="$PATH":{":".join(shlex.quote(str(folder)) for folder in folders)}')


def missing_on_path(cluster: Cluster) -> list[Path]:
    """Folders of the cluster's own `nomad` and `consul`, where this shell has none: hints name their commands."""
    links = (cluster.home.programs / program for program in ("nomad", "consul"))
    return [link.resolve().parent for link in links if link.exists() and shutil.which(link.name) is None]


@command.command("status")
@name_option
@json_option
def status(name: str, as_json: bool) -> None:
    """Show how each part is, and where its pages are; fails where a part is not healthy."""
    cluster = read_cluster(name)
    parts = health.parts(cluster)
    if as_json:
        output.emit_json({"name": name, "environment": cluster.environment(), "ports": cluster.ports, "parts": parts})
    else:
        for part in parts:
            word = "healthy" if part.healthy else "failing"
            output.emit(f"{part.name:<10} {word}  {part.url:<28} {part.detail}")
        for key, value in cluster.environment().items():
            output.emit(f"{key}={value}")
    if sick := [part.name for part in parts if part.essential and not part.healthy]:
        raise NomadserveError(
            f"not healthy in cluster `{name}`: {', '.join(sick)}",
            hint=f"`nomadserve dev up --name {name}` starts what is missing; logs: {cluster.home.logs}",
        )


@command.command("list")
@json_option
def list_clusters(as_json: bool) -> None:
    """List the local clusters of this user."""
    clusters = [cluster for name in known_names() if (cluster := _read(name)) is not None]
    rows = [
        {
            "name": cluster.name,
            "port_offset": cluster.offset,
            "healthy": all(part.healthy for part in health.parts(cluster) if part.essential),
            "environment": cluster.environment(),
        }
        for cluster in clusters
    ]
    if as_json:
        output.emit_json(rows)
        return
    for row in rows:
        output.emit(f"{row['name']:<16} {'healthy' if row['healthy'] else 'failing'}  port offset {row['port_offset']}")
    if not rows:
        output.say("no local cluster is up")


@command.command("down")
@name_option
@click.option("--all", "everything", is_flag=True, help="every local cluster of this user")
def down(name: str, everything: bool) -> None:
    """Stop all jobs, end every process and remove the data of a cluster."""
    names = known_names() if everything else [name]
    if not names:
        output.say("no local cluster is up: nothing to do")
    for each in names:
        with Working() as progress:
            was_there = bring_down(each, progress)
        output.say(f"cluster `{each}` is down" if was_there else f"cluster `{each}` was not up: nothing to do")


def _read(name: str) -> Cluster | None:
    try:
        return read_cluster(name)
    except NomadserveError:
        return None


def _say_links(cluster: Cluster) -> None:
    flag = "" if cluster.name == "default" else f" --name {cluster.name}"
    output.say(f"  Nomad    {cluster.nomad_url}/ui")
    output.say(f"  Consul   {cluster.consul_url}/ui")
    output.say(f"  gateway  {cluster.gateway_url}")
    usual = {"NOMAD_ADDR": "http://127.0.0.1:4646", "CONSUL_HTTP_ADDR": "http://127.0.0.1:8500"}
    if any(os.environ.get(key, default) != cluster.environment()[key] for key, default in usual.items()):
        output.say(f'this shell points elsewhere: `eval "$(nomadserve dev env{flag})"` points it to this cluster')
