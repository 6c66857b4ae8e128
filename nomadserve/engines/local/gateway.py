"""The gateway of a cluster: its Nomad job and the Consul config entries that it and all services rest on."""

from pathlib import Path
from typing import Any

import jinja2

from nomadserve.engines.local.record import Cluster

JOB = "nomadserve-gateway"
SERVICE = "nomadserve"

# Without these first two, Consul takes the services for plain TCP, which can be neither split nor routed.
ENTRIES: tuple[dict[str, Any], ...] = (
    {"Kind": "service-defaults", "Name": SERVICE, "Protocol": "http"},
    {
        "Kind": "service-defaults",
        "Name": JOB,
        "Protocol": "http",
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
                                "Services": [{"Name": SERVICE}],
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
    {"Kind": "service-router", "Name": SERVICE, "Routes": []},
)


def gateway_job(cluster: Cluster) -> str:
    """The job of the gateway as HCL, on loopback and at the cluster's ports."""
    return render_gateway(
        bind_address="127.0.0.1",
        gateway_port=cluster.ports.gateway,
        sidecar_port=cluster.ports.gateway_sidecar,
        admin_port=cluster.ports.gateway_admin,
        consul_http=f"127.0.0.1:{cluster.ports.consul_http}",
        consul_grpc=f"127.0.0.1:{cluster.ports.consul_grpc}",
    )


def render_gateway(
    *,
    bind_address: str = "0.0.0.0",
    gateway_port: int = 8080,
    sidecar_port: int = 8081,
    admin_port: int = 19000,
    consul_http: str = "127.0.0.1:8500",
    consul_grpc: str = "127.0.0.1:8502",
    datacenters: tuple[str, ...] = ("*",),
) -> str:
    """`jobs/gateway.nomad.hcl.j2` with its values; the defaults suit a cluster of machines with Consul agents."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(template_path().read_text()).render(
        job_id=JOB,
        service=SERVICE,
        bind_address=bind_address,
        gateway_port=gateway_port,
        sidecar_port=sidecar_port,
        admin_port=admin_port,
        consul_http=consul_http,
        consul_grpc=consul_grpc,
        datacenters=datacenters,
    )


def template_path() -> Path:
    """The template: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[2]
    inside = package / "jobs" / "gateway.nomad.hcl.j2"
    return inside if inside.is_file() else package.parent / "jobs" / inside.name
