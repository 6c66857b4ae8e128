"""What all services of a cluster share: the gateway, Prometheus and the Autoscaler, as Nomad jobs, and Consul entries.

Rendered here for every cluster: `dev up` runs them on loopback, `platform up` on the machines of an existing one.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import jinja2
import msgspec

from nomadserve import entries, waiting_room
from nomadserve.nomad_api import is_living
from nomadserve.promql import PROMETHEUS, WAKES
from nomadserve.render import jobs_dir

Part = Literal["gateway", "prometheus", "autoscaler"]

PARTS: tuple[Part, ...] = ("gateway", "prometheus", "autoscaler")
"""In the order in which they are started."""

JOBS: dict[Part, str] = {part: f"nomadserve-{part}" for part in PARTS}
"""Their Nomad jobs; the gateway's is also the Consul service of which Envoy is the proxy."""

SERVICES: dict[Part, str] = {"gateway": entries.ROUTER, "prometheus": PROMETHEUS, "autoscaler": "nomad-autoscaler"}
"""Their names in Consul, whose checks tell their health."""

GATEWAY_METRICS = "nomadserve-gateway-metrics"
"""Consul service that names where each gateway's own measurements are."""

# A task has 5 s from the signal to its end; the one that deregisters the gateway comes after it.
ENDED_WITHIN_S = 20.0
POLL_S = 0.1

# Without the first three, Consul takes the services for plain TCP, which can be neither split nor routed.
ENTRIES: tuple[entries.Entry, ...] = (
    entries.service_defaults(SERVICES["gateway"]),
    entries.service_defaults(entries.WAITING_ROOM),
    {
        **entries.service_defaults(JOBS["gateway"]),
        # Replicas speak plain HTTP, but Consul gives every upstream of a proxy mutual TLS: take that off again.
        "EnvoyExtensions": [
            {
                "Name": "builtin/property-override",
                "Required": True,
                "Arguments": {
                    "ProxyType": "connect-proxy",
                    "Patches": [
                        {
                            "ResourceFilter": {
                                "ResourceType": "cluster",
                                "TrafficDirection": "outbound",
                                "Services": [{"Name": SERVICES["gateway"]}],
                            },
                            "Op": "remove",
                            "Path": "/transport_socket",
                        }
                    ],
                },
            }
        ],
    },
    # Each deployed service adds its routes to this one.
    {"Kind": "service-router", "Name": SERVICES["gateway"], "Routes": []},
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the platform listens, and how it runs; the defaults suit machines that each have a Consul agent.

    Attributes:
        bind_address: what the ports are bound to; Envoy's admin port and waiting room are always on loopback.
        consul_http, consul_grpc: addresses (host:port) of the Consul agent of whichever node a job runs on.
        nomad_url: Nomad's API, as the Autoscaler reaches it from whichever node it runs on.
        driver: how Prometheus and the Autoscaler are started; the gateway is always a `raw_exec` task.
        scrape_interval: a time as Prometheus reads it; the windows of targets need at least two scrapes.
        retention: how long Prometheus keeps what it measured.
    """

    bind_address: str = "0.0.0.0"
    gateway_port: int = 8080
    sidecar_port: int = 8081
    admin_port: int = 19000
    gateway_metrics_port: int = 9102
    waiting_port: int = 8082
    prometheus_port: int = 9090
    autoscaler_port: int = 9095
    consul_http: str = "127.0.0.1:8500"
    consul_grpc: str = "127.0.0.1:8502"
    nomad_url: str = "http://127.0.0.1:4646"
    datacenters: tuple[str, ...] = ("*",)
    driver: str = "raw_exec"
    prometheus_image: str = "docker.io/prom/prometheus:v2.53.3"
    autoscaler_image: str = "docker.io/hashicorp/nomad-autoscaler:0.5.0"
    scrape_interval: str = "5s"
    retention: str = "15d"

    @property
    def is_container(self) -> bool:
        """Whether Prometheus and the Autoscaler come as images."""
        return self.driver in ("docker", "podman")

    @property
    def reachable_address(self) -> str:
        """How a process reaches another on the same node."""
        return "127.0.0.1" if self.bind_address == "0.0.0.0" else self.bind_address


def render_part(part: Part, settings: Settings, *, routed: Sequence[str] = ()) -> str:
    """The job of one part as HCL.

    routed: the services whose names the gateway is to have, as `entries.routed_services` tells.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    template = environment.from_string((jobs_dir() / f"{part}.nomad.hcl.j2").read_text())
    return template.render(
        jobs=JOBS,
        services=SERVICES,
        routed=list(routed),
        gateway_metrics_service=GATEWAY_METRICS,
        wakes_job=WAKES,
        waiting_service=entries.WAITING_ROOM,
        waiting_listener=json.dumps(waiting_room.listener(settings.waiting_port)),
        waiting_clusters=",".join(map(json.dumps, waiting_room.clusters(settings.consul_http))),
        is_container=settings.is_container,
        reachable_address=settings.reachable_address,
        **msgspec.structs.asdict(settings),
    )


def wait_until_ended(allocations: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
    """Return once nothing of a stopped part runs, or in vain after `ENDED_WITHIN_S`: register it only then.

    Till then its ports are taken, and Nomad would give the part the same ports at the next address of the node, `::1`
    for one (`AssignPorts` in nomad/structs/network.go of Nomad 1.11): that address Consul would check, and name to
    clients, and nothing would ever listen there.

    allocations: stubs of the part's job, as Nomad lists them.
    """
    deadline = time.monotonic() + ENDED_WITHIN_S
    while any(is_living(each) for each in allocations()):
        if time.monotonic() > deadline:
            return
        time.sleep(POLL_S)
