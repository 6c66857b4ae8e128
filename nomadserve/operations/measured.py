"""What Prometheus has measured of the cluster, where there is one."""

from nomadserve.operations.cluster import Cluster
from nomadserve.platform import SERVICES
from nomadserve.prometheus_api import PrometheusApi


def prometheus_of(cluster: Cluster) -> PrometheusApi | None:
    """The Prometheus that Consul names as healthy: the one that the Autoscaler asks too; None where there is none."""
    healthy = [instance for instance in cluster.consul.instances(SERVICES["prometheus"]) if instance.is_passing]
    return PrometheusApi(f"http://{healthy[0].address}:{healthy[0].port}") if healthy else None
