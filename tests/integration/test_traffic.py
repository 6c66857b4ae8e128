"""A service from its first version to its end, on a real cluster, with real models under real traffic."""

import json
import math
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dns.resolver
import pytest
import requests

from examples.digits.send import Counts, resolve, send
from tests.integration.conftest import NOMADSERVE, Cli, RunningCluster
from tests.signals import signals_heard

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
EXAMPLE = str(DIGITS / "service.hcl.j2")


@pytest.fixture(scope="module")
def digits(cli: Cli) -> Iterator[None]:
    """Service `digits` with v1 and v2, all traffic on v1; taken away at the end."""
    cli("up", EXAMPLE, "--var", "version=v1")
    cli("up", EXAMPLE, "--var", "version=v2")
    yield
    cli("down", "digits", "--yes")


@pytest.fixture
def traffic(cluster: RunningCluster) -> Callable[..., Counts]:
    def run(**options: Any) -> Counts:
        return send("digits", dns_address=dns_address(cluster), **options)

    return run


def dns_address(cluster: RunningCluster) -> str:
    return cluster.environment["CONSUL_DNS_ADDR"]


def fails(cli: Cli, code: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that must exit with `code`."""
    done = cli(*arguments, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@contextmanager
def traffic_meanwhile(traffic: Callable[..., Counts], *, seconds: float) -> Iterator[Counts]:
    """Requests from eight connections while the block runs; what came back is in the counts after it."""
    total = Counts()
    thread = threading.Thread(target=lambda: total.add(traffic(requests=None, seconds=seconds)))
    thread.start()
    yield total
    thread.join()


def answered_by(cluster: RunningCluster, job_id: str) -> float:
    """The requests that the version's replicas which Consul names have answered since they started."""
    found = requests.get(f"{cluster.consul}/v1/health/service/{job_id}", timeout=30).json()
    replicas = [f"http://{each['Service']['Address']}:{each['Service']['Port']}" for each in found]
    pages = [requests.get(f"{replica}/metrics", timeout=30).text for replica in replicas]
    counts = [re.findall(r'^nomadserve_requests_total{.*outcome="ok".*} (\S+)$', page, re.MULTILINE) for page in pages]
    return sum(float(each) for page in counts for each in page)


def wait_for_requests(cluster: RunningCluster, job_id: str) -> None:
    """Until a version has answered more of them than now."""
    before = answered_by(cluster, job_id)
    wait_for(lambda: answered_by(cluster, job_id) > before)


def consul_entries(cluster: RunningCluster) -> dict[str, Any]:
    """All config entries of the kinds that nomadserve writes, without what each write changes."""
    kinds = ("service-defaults", "service-resolver", "service-splitter", "service-router")
    found = [entry for kind in kinds for entry in requests.get(f"{cluster.consul}/v1/config/{kind}", timeout=30).json()]
    volatile = {"ModifyIndex", "CreateIndex", "Hash"}
    return {
        f"{entry['Kind']} {entry['Name']}": {key: value for key, value in entry.items() if key not in volatile}
        for entry in found
    }


def test_first_version_has_all_the_traffic_and_the_second_none(digits: None, traffic: Callable[..., Counts]) -> None:
    counts = traffic(requests=200)
    assert not counts.failed
    assert dict(counts.answered) == {"v1": 200}


def test_name_resolves_to_the_gateway_with_its_port(digits: None, cluster: RunningCluster) -> None:
    gateway = urlsplit(cluster.gateway)
    assert resolve("digits.service.consul", dns_address(cluster)) == [(gateway.hostname, gateway.port)]


def test_shares_follow_the_weights(digits: None, cli: Cli, traffic: Callable[..., Counts]) -> None:
    cli("split", "digits", "v1=90", "v2=10")
    counts = traffic(requests=2000)
    assert not counts.failed
    assert counts.answered.total() == 2000
    deviation = math.sqrt(2000 * 0.1 * 0.9)
    assert abs(counts.answered["v2"] - 200) <= 4 * deviation
    assert counts.accuracy("v1") > 0.9
    assert counts.accuracy("v2") > 0.9


def test_a_header_pins_a_version_past_the_weights(digits: None, cli: Cli) -> None:
    cli("split", "digits", "v1=100")
    body = json.dumps({"inputs": {"image": [[0] * 64]}})
    replies = [json.loads(cli("call", "digits", body, "--version", "v2").stdout) for _ in range(5)]
    assert {reply["version"] for reply in replies} == {"v2"}


def test_metrics_are_not_for_clients(digits: None, cluster: RunningCluster) -> None:
    reply = requests.get(f"{cluster.gateway}/metrics", headers={"Host": "digits.service.consul"}, timeout=30)
    assert reply.status_code == 404


def test_stopping_a_version_under_load_fails_no_request(
    digits: None, cli: Cli, cluster: RunningCluster, traffic: Callable[..., Counts]
) -> None:
    cli("split", "digits", "v1=50", "v2=50")
    job = f"{cluster.nomad}/v1/job/digits-v2"

    def runs() -> bool:
        replicas = requests.get(f"{job}/allocations", timeout=30).json()
        return any(each["ClientStatus"] in {"pending", "running"} for each in replicas)

    with traffic_meanwhile(traffic, seconds=12) as counts:
        wait_for_requests(cluster, "digits-v2")
        requests.delete(job, timeout=30).raise_for_status()
    assert not counts.failed
    assert counts.answered["v2"] > 0, "v2 had its share before it was stopped"
    wait_for(lambda: not runs())
    after = traffic(requests=50)
    assert dict(after.answered) == {"v1": 50}
    cli("up", EXAMPLE, "--var", "version=v2")


def test_moving_all_traffic_under_load_fails_no_request(
    digits: None, cli: Cli, cluster: RunningCluster, traffic: Callable[..., Counts]
) -> None:
    cli("split", "digits", "v1=100")
    with traffic_meanwhile(traffic, seconds=5) as counts:
        wait_for_requests(cluster, "digits-v1")
        cli("split", "digits", "v1=0", "v2=100")
        after = traffic(requests=100)
    assert not counts.failed
    assert counts.answered["v1"] > 0
    assert dict(after.answered) == {"v2": 100}, "the command returns only once the gateway serves the new weights"
    cli("split", "digits", "v1=100")


def test_a_second_up_changes_nothing(digits: None, cli: Cli, cluster: RunningCluster) -> None:
    before = consul_entries(cluster), job_version(cluster, "digits-v1")
    done = cli("up", EXAMPLE, "--var", "version=v1")
    assert "nothing to change" in done.stderr
    assert (consul_entries(cluster), job_version(cluster, "digits-v1")) == before
    assert "nothing to change" in cli("plan", EXAMPLE, "--var", "version=v1").stdout


def job_version(cluster: RunningCluster, job_id: str) -> int:
    version: int = requests.get(f"{cluster.nomad}/v1/job/{job_id}", timeout=30).json()["Version"]
    return version


def test_a_scaled_count_survives_an_up(digits: None, cli: Cli, cluster: RunningCluster, tmp_path: Path) -> None:
    scaling = 'scaling {\n  min = 1\n  max = 3\n  evaluation_interval = "2s"\n  query = "vector(2)"\n }'
    cli("up", service_file(tmp_path, "counts", body=scaling))
    wait_for(lambda: healthy(cli, "counts") == 2)  # Prometheus may have started just now
    file = service_file(tmp_path, "counts", body=f"queue {{\n max = 64\n }}\n {scaling}")
    assert "Count" not in cli("plan", file).stdout
    cli("up", file, "--yes")
    job = requests.get(f"{cluster.nomad}/v1/job/counts-v1", timeout=30).json()
    assert job["TaskGroups"][0]["Count"] == 2
    cli("down", "counts", "--yes")


def service_file(folder: Path, name: str, *, version: str = "v1", source: str = "", body: str = "") -> str:
    model = source or str(DIGITS / "models" / "digits-v1.onnx")
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.hcl.j2"
    path.write_text(
        f'service "{name}" {{\n version = "{version}"\n model "digits" {{\n source = "{model}"\n }}\n'
        f' resources {{\n cpu = 100\n memory = "200 MiB"\n }}\n {body}\n}}\n'
    )
    return str(path)


def healthy(cli: Cli, service: str) -> int:
    found = json.loads(cli("status", service, "--json").stdout)
    return sum(version["replicas_healthy"] for version in found[0]["versions"])


def wait_for(condition: Callable[[], bool], *, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.2)


def test_a_version_that_does_not_load_leaves_the_others_alone(
    digits: None, cli: Cli, traffic: Callable[..., Counts], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    file = service_file(tmp_path, "digits", version="broken", source=str(broken))
    with traffic_meanwhile(traffic, seconds=4) as counts:
        failed = fails(cli, 1, "up", file)
    assert "`digits-broken` did not become healthy" in failed.stderr
    assert "broken.onnx" in failed.stderr, "the task's own last log lines are printed"
    assert not counts.failed
    assert set(counts.answered) == {"v1"}
    refused = fails(cli, 1, "split", "digits", "v1=50", "broken=50")
    assert "no healthy replica" in refused.stderr
    cli("down", "digits", "broken")
    assert "digits-broken" not in str(cli("status", "digits").stdout)


def test_a_broken_change_of_a_version_leaves_its_running_replicas_alone(cli: Cli, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes((DIGITS / "models" / "digits-v1.onnx").read_bytes())
    file = service_file(tmp_path, "steady", source=str(model))
    cli("up", file)
    model.write_bytes(b"this is no model")
    failed = fails(cli, 1, "up", file)
    assert "~ model digits checksum: sha256:" in failed.stderr
    assert "Nomad went back to the last healthy revision of steady-v1" in failed.stderr
    wait_for(lambda: healthy(cli, "steady") == 1)
    body = json.dumps({"inputs": {"image": [[0] * 64]}})
    assert json.loads(cli("call", "steady", body).stdout)["version"] == "v1"
    cli("down", "steady", "--yes")


def test_a_version_with_traffic_is_not_taken_away(digits: None, cli: Cli) -> None:
    refused = fails(cli, 2, "down", "digits", "v1")
    assert "version `v1` of `digits` still has 100 % of the traffic" in refused.stderr
    assert "nomadserve split digits v2=100" in refused.stderr


def test_no_room_is_said_with_each_nodes_reason(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "huge.hcl.j2"
    file.write_text(Path(service_file(tmp_path, "huge")).read_text().replace("200 MiB", "9000 GiB"))
    assert fails(cli, 4, "plan", str(file)).stdout.count("MiB memory free, 9216000 MiB is asked for")
    blocked = fails(cli, 4, "up", str(file))
    assert "no node has room for `huge-v1`: 0 of 1 replicas placed" in blocked.stderr
    assert "`nomadserve down huge` withdraws it" in blocked.stderr
    cli("down", "huge", "--yes")


def test_ctrl_c_stops_following_and_not_the_deployment(cli: Cli, tmp_path: Path) -> None:
    file = service_file(tmp_path, "patient")
    with signals_heard():
        process = subprocess.Popen([NOMADSERVE, "up", file], env=cli.environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "registered" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 130
    assert "detached: Nomad goes on with patient-v1" in rest
    wait_for(lambda: healthy(cli, "patient") == 1)
    assert "healthy" in cli("up", file).stderr
    cli("down", "patient", "--yes")


def test_a_name_that_something_else_has_is_refused(digits: None, cli: Cli, tmp_path: Path) -> None:
    taken = fails(cli, 2, "up", service_file(tmp_path, "digits-v1"))
    assert "`digits-v1` is already the Consul name of a version of service `digits`" in taken.stderr


def test_down_removes_all_that_up_made_and_nothing_else(cli: Cli, cluster: RunningCluster, tmp_path: Path) -> None:
    foreign = {"Kind": "service-defaults", "Name": "somebody-elses", "Protocol": "http"}
    requests.put(f"{cluster.consul}/v1/config", json=foreign, timeout=30).raise_for_status()
    before = consul_entries(cluster)
    for version in ("v1", "v2"):
        cli("up", service_file(tmp_path, "passing", version=version))
    assert set(consul_entries(cluster)) > set(before)
    cli("down", "passing", "--yes")
    assert consul_entries(cluster) == before
    assert "there is no service `passing`" in fails(cli, 2, "status", "passing").stderr
    wait_for(lambda: not named("passing", cluster))  # Nomad tells Consul a moment after the job has changed


def named(service: str, cluster: RunningCluster) -> bool:
    try:
        return bool(resolve(f"{service}.service.consul", dns_address(cluster)))
    except dns.resolver.NXDOMAIN:
        return False
