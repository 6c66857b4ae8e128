"""The Autoscaler and Prometheus of the shared cluster, under real load on replicas of a known capacity.

The tests of the loaded service run in their order, on one service under one steady load, so that each begins where the
one before it ended.
"""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from nomadserve import promql, spec
from nomadserve.engines.local.ports import ports_at
from nomadserve.operations.policies import prometheus_queries
from nomadserve.prometheus_api import PrometheusApi
from tests.integration.conftest import Cli, RunningCluster

# One row takes a tenth of a second and batches hold one row: a replica answers 10 requests a second.
MODEL = '{"inputs": [{"name": "x", "shape": [1]}], "outputs": [{"name": "y", "shape": [1]}], "delay_ms": 100}'
BODY = json.dumps({"inputs": {"x": [[1]]}})
LOAD_PER_S = 20
NEEDED = 3  # at 8 requests a second for each replica
COOLDOWN_S = 20
WITHIN_S = 180.0
CONNECTIONS = 40


class Load:
    """Requests at a constant rate through the gateway, whatever the replies do; counts statuses by second."""

    def __init__(self, gateway: str, service: str) -> None:
        self.address = urlsplit(gateway).netloc
        self.host = f"{service}.service.consul"
        self.statuses: list[tuple[float, int]] = []
        self._begin = time.monotonic()
        self._next = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(CONNECTIONS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def since(self, moment: float) -> Counter[int]:
        """Statuses of the requests that were due from `moment` on."""
        return Counter(status for due, status in list(self.statuses) if due >= moment)

    def _work(self) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=30)
        headers = {"Host": self.host, "Content-Type": "application/json"}
        while not self._stop.wait(max(0.0, (due := self._due()) - time.monotonic())):
            connection.request("POST", "/v1/inference", BODY, headers)
            reply = connection.getresponse()
            reply.read()
            self.statuses.append((due, reply.status))
        connection.close()

    def _due(self) -> float:
        with self._lock:
            self._next += 1
            return self._begin + self._next / LOAD_PER_S


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scaling")
    (folder / "slow.json").write_text(MODEL)
    return folder


def service_file(folder: Path, name: str, scaling: str, *, version: str = "v1", queue: int = 32) -> str:
    path = folder / f"{name}-{version}-{queue}.hcl.j2"
    path.write_text(
        f"""service "{name}" {{
  version = "{version}"
  model "slow" {{
    source    = "slow.json"
    engine    = "fake"
    max_batch = 1
  }}
  resources {{
    cpu    = 20
    memory = "100 MiB"
  }}
  queue {{
    max = {queue}
  }}
  scaling {{
    min = 1
    max = 4
    evaluation_interval  = "2s"
    cooldown             = "{COOLDOWN_S}s"
    cooldown_on_scale_up = "4s"
    {scaling}
  }}
}}
"""
    )
    return str(path)


BY_REQUESTS = 'target "requests_per_second" {\n value = 8\n window = "10s"\n }'


@pytest.fixture(scope="module")
def loaded(cli: Cli, cluster: RunningCluster, folder: Path) -> Iterator[Load]:
    """Service `slow` with one replica, and from now on twice the load that it can take."""
    cli("up", service_file(folder, "slow", BY_REQUESTS))
    load = Load(cluster.gateway, "slow")
    yield load
    load.stop()
    cli("down", "slow", "--yes")


def count(cluster: RunningCluster, job_id: str) -> int:
    job = requests.get(f"{cluster.nomad}/v1/job/{job_id}", timeout=30).json()
    found: int = job["TaskGroups"][0]["Count"]
    return found


def healthy(cluster: RunningCluster, job_id: str) -> int:
    found = requests.get(f"{cluster.consul}/v1/health/service/{job_id}", params={"passing": "1"}, timeout=30).json()
    return len(found)


def wait_for(condition: Callable[[], bool], *, seconds: float = WITHIN_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.5)


def stays(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Whether the condition holds all that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not condition():
            return False
        time.sleep(0.5)
    return True


def program(cluster: RunningCluster, name: str) -> psutil.Process:
    """The process of that program which belongs to this cluster."""
    [pid] = pids(cluster, name)
    return psutil.Process(pid)


def pids(cluster: RunningCluster, name: str) -> list[int]:
    """The processes of that program which belong to this cluster; one that has ended has no command line."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"]
        and Path(process.info["cmdline"][0]).name == name
        and str(cluster.home) in " ".join(process.info["cmdline"])
    ]


def prometheus(cluster: RunningCluster) -> PrometheusApi:
    return PrometheusApi(f"http://127.0.0.1:{ports_at(cluster.offset).prometheus}")


def wished(cluster: RunningCluster, job_id: str) -> float:
    """The most replicas that the queries of a job's policy ask for: where the Autoscaler will bring it, or leave it."""
    job = requests.get(f"{cluster.nomad}/v1/job/{job_id}", timeout=30).json()
    return max(value for _, query in prometheus_queries(job) for value in prometheus(cluster).values(query))


def test_platform_is_healthy_and_a_second_up_changes_nothing(cli: Cli) -> None:
    def states() -> list[tuple[str, str]]:
        status = cli.json("platform", "status")
        assert isinstance(status, list)
        return [(part["part"], part["state"]) for part in status]

    # Before this module's own: others may have ended the gateway's process, and one check that is late is a failure.
    wait_for(lambda: states() == [("gateway", "healthy"), ("prometheus", "healthy"), ("autoscaler", "healthy")])
    assert "nothing to change" in cli("platform", "up").stderr


def test_gateway_is_not_stopped_under_services(loaded: Load, cli: Cli) -> None:
    refused = cli("platform", "down", "gateway", check=False)
    assert refused.returncode == 2
    assert "the gateway routes to" in refused.stderr


def test_a_step_in_load_is_answered(loaded: Load, cluster: RunningCluster) -> None:
    wait_for(lambda: healthy(cluster, "slow-v1") >= NEEDED)
    begin = time.monotonic() + 15  # what waited until now is worked off
    wait_for(lambda: loaded.since(begin).total() > 5 * LOAD_PER_S)
    assert set(loaded.since(begin)) == {200}


def test_every_replica_and_the_gateway_are_measured_under_their_labels(loaded: Load, cluster: RunningCluster) -> None:
    replicas = 'count(up{service="slow",version="v1",alloc!="",node!=""} == 1)'
    wait_for(lambda: sum(prometheus(cluster).values(replicas)) >= NEEDED)
    through = 'sum(rate(envoy_cluster_upstream_rq_total{envoy_cluster_name="slow-v1"}[10s]))'
    wait_for(lambda: sum(prometheus(cluster).values(through)) > 0)


def test_a_scaled_count_survives_an_up_under_load(
    loaded: Load, cli: Cli, cluster: RunningCluster, folder: Path
) -> None:
    assert count(cluster, "slow-v1") >= NEEDED
    cli("up", service_file(folder, "slow", BY_REQUESTS, queue=40), "--yes")
    # Not "as before": the Autoscaler may take one more than is needed away again, which a backlog had asked for.
    assert count(cluster, "slow-v1") >= NEEDED


def test_a_killed_autoscaler_comes_back_and_takes_nothing_away(loaded: Load, cluster: RunningCluster) -> None:
    before = program(cluster, "nomad-autoscaler")
    before.kill()
    wait_for(lambda: before.pid not in (again := pids(cluster, "nomad-autoscaler")) and len(again) == 1)
    wait_for(lambda: healthy(cluster, "nomad-autoscaler") == 1)
    assert stays(lambda: count(cluster, "slow-v1") >= NEEDED, seconds=8)


def test_split_warns_and_scale_first_moves_all_traffic_without_a_refusal(
    loaded: Load, cli: Cli, cluster: RunningCluster, folder: Path
) -> None:
    cli("up", service_file(folder, "slow", BY_REQUESTS, version="v2"))
    begin = time.monotonic()
    moved = cli("split", "slow", "v1=0", "v2=100", "--scale-first")
    assert "scaling v2 to" in moved.stderr
    assert healthy(cluster, "slow-v2") >= NEEDED
    job = requests.get(f"{cluster.nomad}/v1/job/slow-v2", timeout=30).json()
    assert job["TaskGroups"][0]["Scaling"]["Min"] == 1, "its own bounds are back"
    assert set(loaded.since(begin)) == {200}
    assert stays(lambda: count(cluster, "slow-v2") >= NEEDED, seconds=5)


def test_a_version_without_traffic_goes_to_its_minimum(loaded: Load, cluster: RunningCluster) -> None:
    in_flight = 'sum(nomadserve_in_flight{service="slow",version="v1"})'
    wait_for(lambda: prometheus(cluster).values(in_flight) == [0])
    wait_for(lambda: count(cluster, "slow-v1") == 1)


def test_split_warns_of_too_few_replicas(loaded: Load, cli: Cli, cluster: RunningCluster) -> None:
    wait_for(lambda: healthy(cluster, "slow-v1") == 1)  # those that were just taken away leave Consul a moment later
    back = cli("split", "slow", "v1=100")
    assert "warning: `v1` has 1 healthy replica, and 100 % of the load of now needs about" in back.stderr
    cli("split", "slow", "v2=100")


def test_while_prometheus_is_away_nothing_is_scaled_down(loaded: Load, cli: Cli, cluster: RunningCluster) -> None:
    # What the split before this test took away from v2 for a moment may still lower its count, if that took long.
    wait_for(lambda: wished(cluster, "slow-v2") >= NEEDED and count(cluster, "slow-v2") >= NEEDED)
    cli("platform", "down", "prometheus")
    loaded.stop()
    assert stays(lambda: count(cluster, "slow-v2") >= NEEDED, seconds=COOLDOWN_S + 20)
    cli("platform", "up", "prometheus")


def test_after_an_outage_and_a_crash_the_count_follows_the_load_again(loaded: Load, cluster: RunningCluster) -> None:
    program(cluster, "prometheus").kill()  # a refused connection is what Autoscaler 0.5.0 does not get over by itself
    loaded.stop()
    wait_for(lambda: count(cluster, "slow-v2") == 1)


def test_a_schedule_raises_the_minimum_and_lowers_it_again(cli: Cli, cluster: RunningCluster, folder: Path) -> None:
    begin = datetime.now(UTC)

    def until(end: datetime) -> str:
        window = f'schedule "now" {{\n start = "{begin.minute} * * * *"\n end = "{end.minute} * * * *"\n min = 3\n }}'
        return service_file(folder, "timed", window)

    # However long it takes to start, the schedule holds then; only after that it gets an end that can be waited for.
    cli("up", until(begin + timedelta(minutes=30)))
    wait_for(lambda: count(cluster, "timed-v1") == 3)
    end = (datetime.now(UTC) + timedelta(seconds=20 + 60)).replace(second=0, microsecond=0)
    cli("up", until(end), "--yes")
    wait_for(lambda: count(cluster, "timed-v1") == 1)
    assert datetime.now(UTC) >= end
    cli("down", "timed", "--yes")


@pytest.fixture(scope="module")
def two_replicas(cli: Cli, folder: Path) -> Iterator[spec.Service]:
    """A version with two replicas that Prometheus has known for a while."""
    cli("up", service_file(folder, "two", 'query = "vector(2)"'))
    yield spec.Service(name="two", scaling=spec.Scaling(min=1, max=7, cooldown=spec.Seconds(0)))
    cli("down", "two", "--yes")


NO_SERIES = promql.single("nothing_has_this_name")


@pytest.mark.parametrize(
    ("wanted", "replicas"),
    [
        ("vector(2.1)", 3.0),
        ("vector(0)", 0.0),
        ("vector(1) / vector(0)", 7.0),
        ("vector(0) / vector(0)", 2.0),
        ("sum(nothing_has_this_name)", 2.0),
        (promql.single("up"), 2.0),
        (promql.single("sum(up) * 0 + 4"), 4.0),
        (NO_SERIES, 2.0),
    ],
    ids=["fraction", "idle", "infinite", "NaN", "no data", "several series", "own query", "own query without data"],
)
def test_every_answer_is_a_number_of_replicas(
    two_replicas: spec.Service, cluster: RunningCluster, wanted: str, replicas: float
) -> None:
    def known() -> list[float]:
        return prometheus(cluster).values('count(up{service="two"})')

    wait_for(lambda: known() == [2.0] and count(cluster, "two-v1") == 2)
    query = promql.replicas(wanted, two_replicas)
    wait_for(lambda: bool(prometheus(cluster).values(query)))  # it may be young still
    assert prometheus(cluster).values(query) == [replicas]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("up", "series, and one is wanted: the number of replicas"),
        ("sum(up) * 0 / 0", "gives nan, which is no number of replicas"),
        ("sum(up", "refused by Prometheus"),
        ("3", "hint: a bare number is no series: `vector(3)`"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_before_anything_is_written(
    cli: Cli, cluster: RunningCluster, folder: Path, query: str, message: str
) -> None:
    refused = cli("up", service_file(folder, "wrong", f'query = "{query}"'), check=False)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert requests.get(f"{cluster.nomad}/v1/job/wrong-v1", timeout=30).status_code == 404


def test_a_query_without_data_is_fine_until_replicas_run(cli: Cli, folder: Path) -> None:
    file = service_file(folder, "early", 'query = "sum(nothing_has_this_name)"')
    assert "gives nothing yet" in cli("up", file).stderr
    refused = cli("plan", file, check=False)
    assert refused.returncode == 2
    assert "gives nothing, although this version runs" in refused.stderr
    cli("down", "early", "--yes")
