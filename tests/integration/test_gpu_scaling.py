"""Target `gpu` on the real Prometheus and Autoscaler: only what the driver would measure is made up.

An exporter of the test's own stands in for the GPUs' driver. Prometheus finds it as it finds replicas, by its tag and
meta in Consul, so its series carry the labels that the policy selects by.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from nomadserve import promql
from nomadserve.engines.local.ports import ports_at
from nomadserve.language import load_service
from nomadserve.nomad_api import NomadApi
from nomadserve.operations.policies import prometheus_queries
from nomadserve.prometheus_api import PrometheusApi
from nomadserve.render import render_job
from tests.integration.gpu_plugin import FakeGpu, agent_configuration
from tests.integration.gpu_plugin import gpu_plugin_dir as gpu_plugin_dir  # a fixture, found in this module
from tests.integration.local_clusters import Cli, RunningCluster

PATIENCE_S = 180.0


@dataclass
class Exporter:
    """`/metrics` with one series for each GPU, in percent, as `nomadserve serve` has them."""

    percent: list[float]
    port: int = 0

    def text(self) -> str:
        return "".join(
            f'{promql.GPU_UTILIZATION}{{gpu="GPU-{number}"}} {value}\n' for number, value in enumerate(self.percent)
        )


@pytest.fixture(scope="module")
def gpu_cluster(
    gpu_plugin_dir: Path,
    start_cluster: Callable[..., RunningCluster],
    bare_cli: Cli,
    tmp_path_factory: pytest.TempPathFactory,
) -> RunningCluster:
    """A cluster with three GPUs, whose Prometheus and Autoscaler are healthy."""
    configuration = tmp_path_factory.mktemp("gpus") / "gpus.hcl"
    gpus = FakeGpu(name="NVIDIA L4", memory_mib=23034, count=3, driver_version="535.183.01")
    configuration.write_text(agent_configuration(gpu_plugin_dir, [gpus]))
    cluster = start_cluster("gpuload", "--nomad-config", str(configuration))
    Cli({**bare_cli.environment, **cluster.environment})("platform", "up")
    return cluster


@pytest.fixture(scope="module")
def gpu_cli(bare_cli: Cli, gpu_cluster: RunningCluster) -> Cli:
    return Cli({**bare_cli.environment, **gpu_cluster.environment})


@pytest.fixture
def exporter(gpu_cluster: RunningCluster) -> Iterator[Exporter]:
    """Registered in Consul with what a replica of `busy` v1 has there."""
    found = Exporter([])

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(found.text().encode())

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    service = {
        "Name": "gpu-exporter",
        "Address": "127.0.0.1",
        "Port": found.port,
        "Tags": ["nomadserve", "v1"],
        "Meta": {"service": "busy", "version": "v1", "alloc": "exporter"},
    }
    requests.put(f"{gpu_cluster.consul}/v1/agent/service/register", json=service, timeout=30).raise_for_status()
    yield found
    requests.put(f"{gpu_cluster.consul}/v1/agent/service/deregister/gpu-exporter", timeout=30).raise_for_status()
    server.shutdown()
    thread.join()
    server.server_close()


def service_file(folder: Path, *, gpus: int, ceiling: int = 3) -> Path:
    (folder / "model.json").write_text(
        '{"inputs": [{"name": "x", "shape": [1]}], "outputs": [{"name": "y", "shape": [1]}]}'
    )
    file = folder / f"busy-{gpus}-{ceiling}.hcl.j2"
    file.write_text(f"""service "busy" {{
  model "busy" {{
    source = "model.json"
    engine = "fake"
  }}
  resources {{
    cpu    = 20
    memory = "100 MiB"
  }}
  gpu {{
    count = {gpus}
  }}
  scaling {{
    min = 1
    max = {ceiling}
    evaluation_interval  = "2s"
    cooldown             = "6s"
    cooldown_on_scale_up = "2s"
    target "gpu" {{
      value  = 60
      window = "10s"
    }}
  }}
}}
""")
    return file


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.5)


def asked(cluster: RunningCluster, file: Path) -> list[float]:
    """What the policy's own query gives now, as the Autoscaler would get it."""
    nomad = NomadApi(cluster.nomad)
    [(_, query)] = prometheus_queries(nomad.parse(render_job(load_service(file, {}))))
    nomad.close()
    return PrometheusApi(f"http://127.0.0.1:{ports_at(cluster.offset).prometheus}").values(query)


def test_a_replicas_gpus_are_counted_together(gpu_cluster: RunningCluster, exporter: Exporter, tmp_path: Path) -> None:
    exporter.percent = [100, 100]
    # Of one replica with two GPUs at 60 percent each, 200 percent ask for 1.7 replicas; with one GPU for 3.4, of 3.
    wait_for(lambda: asked(gpu_cluster, service_file(tmp_path, gpus=2)) == [2])
    wait_for(lambda: asked(gpu_cluster, service_file(tmp_path, gpus=1)) == [3])
    exporter.percent = [0, 0]
    wait_for(lambda: asked(gpu_cluster, service_file(tmp_path, gpus=1)) == [0])  # `min` is Nomad's to keep


def test_the_count_follows_the_time_of_the_gpus(
    gpu_cli: Cli, gpu_cluster: RunningCluster, exporter: Exporter, tmp_path: Path
) -> None:
    exporter.percent = []
    file = service_file(tmp_path, gpus=1)
    gpu_cli("up", str(file))
    changed = str(service_file(tmp_path, gpus=1, ceiling=2))

    def warned() -> bool:
        planned = gpu_cli("plan", changed)
        return (
            "target `gpu`: the replicas that run give no `nomadserve_gpu_utilization`"
            in planned.stdout + planned.stderr
        )

    wait_for(warned)  # once Prometheus has the replica, and no longer the exporter of the test before

    def count() -> int:
        job = requests.get(f"{gpu_cluster.nomad}/v1/job/busy-v1", timeout=30).json()
        found: int = job["TaskGroups"][0]["Count"]
        return found

    exporter.percent = [95]
    wait_for(lambda: count() == 2)
    exporter.percent = [80, 80]
    wait_for(lambda: count() == 3)
    exporter.percent = [10]
    wait_for(lambda: count() == 1)
    gpu_cli("down", "busy", "--yes")
