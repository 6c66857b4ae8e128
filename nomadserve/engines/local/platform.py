"""The platform of a local cluster: its jobs on loopback, at the cluster's ports."""

from nomadserve import entries, platform
from nomadserve.engines.catalogue import AUTOSCALER, PROMETHEUS_SERVER, Engine
from nomadserve.engines.local import api
from nomadserve.engines.local.record import Cluster, Home, known_names

ENGINES: dict[platform.Part, Engine] = {"prometheus": PROMETHEUS_SERVER, "autoscaler": AUTOSCALER}
"""What these parts run; a cluster serves without them, it only does not scale."""


def settings(cluster: Cluster) -> platform.Settings:
    """Where the parts of this cluster listen; measured often, so that tests and demonstrations need no patience."""
    return platform.Settings(
        bind_address="127.0.0.1",
        gateway_port=cluster.ports.gateway,
        sidecar_port=cluster.ports.gateway_sidecar,
        waiting_port=cluster.ports.gateway_waiting,
        admin_port=cluster.ports.gateway_admin,
        gateway_metrics_port=cluster.ports.gateway_metrics,
        prometheus_port=cluster.ports.prometheus,
        autoscaler_port=cluster.ports.autoscaler,
        consul_http=f"127.0.0.1:{cluster.ports.consul_http}",
        consul_grpc=f"127.0.0.1:{cluster.ports.consul_grpc}",
        nomad_url=cluster.nomad_url,
        scrape_interval="2s",
    )


def cluster_at(nomad_address: str) -> Cluster | None:
    """The local cluster of this user whose Nomad has that address."""
    clusters = (Home(name).read() for name in known_names())
    return next((each for each in clusters if each is not None and each.nomad_url == nomad_address.rstrip("/")), None)


def has_job(cluster: Cluster, part: platform.Part) -> bool:
    """Whether the part's job is registered, not stopped and not dead."""
    job = api.find_job(cluster, platform.JOBS[part])
    return job is not None and not job["Stop"] and job["Status"] != "dead"


def register(cluster: Cluster, part: platform.Part) -> None:
    """Register the part's job, once its former one has ended, without waiting for it."""
    routed = entries.routed_services(api.config_entry(cluster, "service-router", entries.ROUTER))
    hcl = platform.render_part(part, settings(cluster), routed=routed)
    job = api.parse_job(cluster, hcl)
    platform.wait_until_ended(lambda: [each for each in api.allocations(cluster) if each["JobID"] == job["ID"]])
    api.register_job(cluster, job, hcl)


def passes(cluster: Cluster, part: platform.Part) -> bool:
    """Whether Consul knows the part as healthy, at the cluster's own port."""
    return getattr(cluster.ports, part) in api.passing_ports(cluster, platform.SERVICES[part])
