"""`nomadserve platform`: what all services share."""

import os
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

import click
from msgspec.structs import replace

from nomadserve.cli import output
from nomadserve.cli.progress import tell
from nomadserve.engines.local import platform as local
from nomadserve.errors import NomadserveError
from nomadserve.operations.cluster import cluster_from
from nomadserve.operations.platform import platform_down, platform_status, platform_up
from nomadserve.platform import PARTS, Part, Settings

parts_argument = click.argument("parts", nargs=-1, type=click.Choice(PARTS), metavar="[gateway|prometheus|autoscaler]…")
json_option = click.option("--json", "as_json", is_flag=True, help="print JSON on stdout")


@click.group("platform")
def command() -> None:
    """Run the gateway, Prometheus and the Autoscaler as Nomad jobs on the cluster that NOMAD_ADDR names."""


@command.command("up")
@parts_argument
@click.option("--bind-address", help="What they listen on; default 0.0.0.0, every address of the node.")
@click.option("--gateway-port", type=int, help="Where requests go in; default 8080.")
@click.option("--prometheus-port", type=int, help="Default 9090.")
@click.option("--autoscaler-port", type=int, help="Its health and metrics; default 9095.")
@click.option(
    "--consul-http", metavar="HOST:PORT", help="Consul's agent, as seen on each node; default 127.0.0.1:8500."
)
@click.option("--consul-grpc", metavar="HOST:PORT", help="The same for Envoy; default 127.0.0.1:8502.")
@click.option("--nomad-url", help="Nomad, as seen on each node; default http://127.0.0.1:4646.")
@click.option("--datacenter", "datacenters", multiple=True, help="Where they may run; may be repeated; default all.")
@click.option(
    "--driver",
    type=click.Choice(["raw_exec", "exec", "docker", "podman"]),
    help="How Prometheus and the Autoscaler start; default raw_exec, which needs them on the PATH of Nomad's agents. "
    "The gateway is always raw_exec, and needs `consul` and `envoy` there.",
)
@click.option("--prometheus-image", help="With docker and podman.")
@click.option("--autoscaler-image", help="With docker and podman.")
@click.option("--scrape-interval", help="How often Prometheus measures; default 5s.")
@click.option("--retention", help="How long Prometheus keeps what it measured; default 15d.")
@click.option(
    "--timeout", "timeout_s", type=float, default=120, show_default=True, help="Seconds to wait for each part."
)
@click.option("--json", "as_json", is_flag=True, help="Report each step as a line of JSON on stdout.")
def up(parts: tuple[Part, ...], timeout_s: float, as_json: bool, **options: str | int | tuple[str, ...] | None) -> None:
    """Start all parts, or those named; a second time changes only what differs.

    On a local cluster of `nomadserve dev` its own addresses and ports are the defaults. Leave Prometheus out where
    one is registered in Consul as `prometheus` already: docs/scaling.md says what it must measure.
    """
    given = {key: value for key, value in options.items() if value not in (None, ())}
    settings = replace(defaults(os.environ), **given)
    with cluster_from() as cluster:
        tell(platform_up(cluster, settings, parts or PARTS, timeout_s=timeout_s), as_json=as_json)


@command.command("status")
@json_option
def status(as_json: bool) -> None:
    """Show how each part is; fails where one is not healthy."""
    with cluster_from() as cluster:
        found = platform_status(cluster)
    if as_json:
        output.emit_json(found)
    else:
        for part in found:
            output.emit(f"{part.part:<10} {part.state:<8} {', '.join(part.addresses) or '—':<22} {part.detail}")
    if sick := [part.part for part in found if part.state != "healthy"]:
        raise NomadserveError(f"not healthy: {', '.join(sick)}", hint="`nomadserve platform up` starts what is missing")


@command.command("down")
@parts_argument
@click.option("--force", is_flag=True, help="Stop the gateway even while services are routed through it.")
@click.option("--json", "as_json", is_flag=True, help="Report each step as a line of JSON on stdout.")
def down(parts: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Stop all parts, or those named. What Prometheus measured goes with it."""
    wanted = cast("tuple[Part, ...]", parts) or PARTS
    with cluster_from() as cluster:
        tell(platform_down(cluster, wanted, is_forced=force), as_json=as_json)


def defaults(environ: Mapping[str, str]) -> Settings:
    """Those of the local cluster that the environment names; else agents on every node, at the ports named there."""
    nomad = environ.get("NOMAD_ADDR", "http://127.0.0.1:4646")
    cluster = local.cluster_at(nomad)
    if cluster is not None:
        return local.settings(cluster)
    settings = Settings()
    if urlsplit(nomad).hostname in ("127.0.0.1", "localhost"):
        settings = replace(settings, nomad_url=nomad)
    consul = urlsplit(environ.get("CONSUL_HTTP_ADDR", "http://127.0.0.1:8500"))
    if consul.hostname in ("127.0.0.1", "localhost"):
        settings = replace(settings, consul_http=consul.netloc)
    return settings
