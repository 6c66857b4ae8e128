"""Spot nodes that are only called so: two of four nodes carry the mark, and are killed and drained under load.

The cluster's own node, with the gateway, is in another pool: no replica of these services runs there.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from nomadserve.engines.local.ports import ports_at
from nomadserve.prometheus_api import PrometheusApi
from tests.integration.client_nodes import POOL, ClientNode, wait_for
from tests.integration.conftest import Cli, RunningCluster
from tests.integration.test_scaling import LOAD_PER_S, Load, stays

MARK = {"nomadserve_spot": "true"}
SPOT, STEADY = ("spot-a", "spot-b"), ("steady-a", "steady-b")
MODEL = '{"inputs": [{"name": "x", "shape": [1]}], "outputs": [{"name": "y", "shape": [1]}], "delay_ms": 5}'
# A node is missed sooner than after the half minute that is usual; not so soon that one on a busy machine is, too: its
# replicas would all be taken for lost.
HEARTBEATS = 'server {\n  heartbeat_grace = "8s"\n  min_heartbeat_ttl = "5s"\n}\n'
WITHIN_S = 180.0
# What was on its way to the killed replica can't be sent again: next to nothing at 5 ms a request. Where the machine
# stood still and all that waited comes at once, Envoy lets no more than three try again at a time (`max_retries`). So a
# second of the load; without any other try it would be a third of all, until Consul misses the node.
LOST_MAX = LOAD_PER_S

WriteService = Callable[..., str]


@pytest.fixture(scope="module")
def spot_cluster(
    start_cluster: Callable[..., RunningCluster], tmp_path_factory: pytest.TempPathFactory
) -> RunningCluster:
    """A local cluster whose server misses a node soon."""
    configuration = tmp_path_factory.mktemp("spot") / "heartbeats.hcl"
    configuration.write_text(HEARTBEATS)
    return start_cluster("spot", "--nomad-config", str(configuration))


@pytest.fixture(scope="module")
def nodes(spot_cluster: RunningCluster) -> Iterator[dict[str, ClientNode]]:
    """Two spot nodes and two others, by name. Should a test fail, nothing of them is left all the same."""
    found = {
        name: ClientNode(spot_cluster, number, name, MARK if name in SPOT else {})
        for number, name in enumerate(SPOT + STEADY)
    }
    for node in found.values():
        node.start()
    for node in found.values():
        node.wait_until_ready()
    yield found
    for job in requests.get(f"{spot_cluster.nomad}/v1/jobs", timeout=30).json():
        requests.delete(f"{spot_cluster.nomad}/v1/job/{job['ID']}", params={"purge": "true"}, timeout=30)
    for node in found.values():
        node.kill()


@pytest.fixture(scope="module")
def spot_cli(bare_cli: Cli, spot_cluster: RunningCluster, nodes: dict[str, ClientNode]) -> Cli:
    return Cli({**bare_cli.environment, **spot_cluster.environment})


@pytest.fixture(scope="module")
def write_service(tmp_path_factory: pytest.TempPathFactory) -> WriteService:
    folder = tmp_path_factory.mktemp("services")
    (folder / "fast.json").write_text(MODEL)

    def write(name: str, spot: str, count: str, *, cpu: int = 20) -> str:
        file = folder / f"{name}.hcl.j2"
        file.write_text(
            f'service "{name}" {{\n node_pool = "{POOL}"\n {count}\n'
            ' model "fast" {\n source = "fast.json"\n engine = "fake"\n }\n'
            f' resources {{\n cpu = {cpu}\n memory = "100 MiB"\n }}\n'
            f" spot {{\n {spot}\n }}\n}}\n"
        )
        return str(file)

    return write


def places(cluster: RunningCluster, job: str) -> Counter[str]:
    """The nodes of the replicas that are wanted and run; `group@node` where the group is not the scaled one."""
    return Counter(
        stub["NodeName"] if stub["TaskGroup"] == "serve" else f"{stub['TaskGroup']}@{stub['NodeName']}"
        for stub in running(cluster, job)
    )


def running(cluster: RunningCluster, job: str) -> list[dict[str, Any]]:
    stubs = requests.get(f"{cluster.nomad}/v1/job/{job}/allocations", timeout=30).json()
    return [stub for stub in stubs if stub["DesiredStatus"] == "run" and stub["ClientStatus"] == "running"]


def serve(cluster: RunningCluster, job: str, replicas: int) -> bool:
    """Whether that many replicas run, and Consul names all of them and no other: none that has just been lost."""
    found = requests.get(f"{cluster.consul}/v1/health/service/{job}", params={"passing": "1"}, timeout=30).json()
    named = sorted(each["Service"]["Meta"]["alloc"] for each in found)
    return len(named) == replicas and named == sorted(stub["ID"] for stub in running(cluster, job))


@pytest.mark.parametrize(
    ("wish", "expected"),
    [("only", {"spot-a": 2, "spot-b": 2}), ("prefer", {"spot-a": 1, "spot-b": 1}), ("avoid", dict.fromkeys(STEADY, 1))],
)
def test_replicas_go_where_the_wish_says(
    spot_cli: Cli, spot_cluster: RunningCluster, write_service: WriteService, wish: str, expected: dict[str, int]
) -> None:
    count = sum(expected.values())
    spot_cli("up", write_service(wish, f"{wish} = true", f"replicas = {count}"))
    assert places(spot_cluster, f"{wish}-v1") == expected
    spot_cli("down", wish, "--yes")


def test_without_a_spot_node_only_exits_4_and_says_why_for_every_node(
    spot_cli: Cli, write_service: WriteService
) -> None:
    file = write_service("nowhere", 'only = true\n attribute = "meta.another"\n value = "yes"', "replicas = 1")
    refused = spot_cli("up", file, check=False)
    assert refused.returncode == 4
    assert "no node has room for `nowhere-v1`: 0 of 1 replicas placed" in refused.stderr
    for node in SPOT + STEADY:
        assert f"  {node}: is not a spot node: meta.another is not set, yes asked for" in refused.stderr
    noted = spot_cli("plan", file, check=False).stdout + refused.stderr
    assert "no node is a spot node (`meta.another` = `yes`): `nomad node meta apply -node-id NODE another=yes`" in noted
    spot_cli("down", "nowhere", "--yes")


@pytest.fixture(scope="module")
def mixed(spot_cli: Cli, spot_cluster: RunningCluster, write_service: WriteService) -> Iterator[Load]:
    """Three replicas, one of which must never be on a spot node, and requests to them all the time."""
    spot_cli("up", write_service("mixed", "prefer = true\n on_demand_min = 1", "replicas = 3"))
    load = Load(spot_cluster.gateway, "mixed")
    yield load
    load.stop()


def failed(load: Load, moment: float) -> int:
    """The requests since then that were not answered."""
    statuses = load.since(moment)
    return statuses.total() - statuses[200]


def test_the_minimum_is_on_demand_and_the_others_are_not(mixed: Load, spot_cluster: RunningCluster) -> None:
    found = places(spot_cluster, "mixed-v1")
    assert [found[node] for node in SPOT] == [1, 1]
    assert found.total() == 3
    assert any(found[f"on-demand@{node}"] for node in STEADY)


def test_a_killed_spot_node_is_made_up_for_elsewhere_and_an_update_ends_meanwhile(
    mixed: Load,
    spot_cli: Cli,
    spot_cluster: RunningCluster,
    nodes: dict[str, ClientNode],
    write_service: WriteService,
) -> None:
    begin = time.monotonic()
    nodes["spot-a"].kill()
    wait_for(lambda: nodes["spot-a"].status() == "down", seconds=WITHIN_S)
    wait_for(lambda: serve(spot_cluster, "mixed-v1", 3), seconds=WITHIN_S)
    assert failed(mixed, begin) <= LOST_MAX
    assert places(spot_cluster, "mixed-v1")["spot-a"] == 0
    spot_cli("up", write_service("mixed", "prefer = true\n on_demand_min = 1", "replicas = 3", cpu=21), "--yes")
    found = places(spot_cluster, "mixed-v1")
    assert found.total() == 3
    assert sum(found[f"on-demand@{node}"] for node in STEADY) == 1


def test_a_node_that_comes_back_leaves_the_count_right(
    mixed: Load, spot_cli: Cli, spot_cluster: RunningCluster, nodes: dict[str, ClientNode]
) -> None:
    nodes["spot-a"].start()
    nodes["spot-a"].wait_until_ready()
    assert stays(lambda: places(spot_cluster, "mixed-v1").total() == 3, seconds=5)
    wait_for(lambda: serve(spot_cluster, "mixed-v1", 3), seconds=WITHIN_S)
    (service,) = spot_cli.json("status", "mixed")  # type: ignore[misc]
    (version,) = service["versions"]
    assert (version["state"], version["replicas_healthy"], version["replicas_wanted"]) == ("healthy", 3, 3)


def test_a_drained_spot_node_gives_its_replicas_away(
    mixed: Load, spot_cluster: RunningCluster, nodes: dict[str, ClientNode]
) -> None:
    begin = time.monotonic()
    nodes["spot-b"].drain()
    wait_for(lambda: places(spot_cluster, "mixed-v1")["spot-b"] == 0, seconds=WITHIN_S)
    wait_for(lambda: serve(spot_cluster, "mixed-v1", 3), seconds=WITHIN_S)
    assert failed(mixed, begin) == 0
    nodes["spot-b"].drain(is_draining=False)


def test_a_higher_minimum_moves_replicas_without_a_gap(
    mixed: Load, spot_cli: Cli, spot_cluster: RunningCluster, write_service: WriteService
) -> None:
    file = write_service("mixed", "prefer = true\n on_demand_min = 2", "replicas = 3", cpu=21)
    moving, seen = spot_cli.start("up", file, "--yes"), []
    while moving.poll() is None:
        seen.append(places(spot_cluster, "mixed-v1").total())
        time.sleep(0.3)
    assert moving.returncode == 0
    assert min(seen) >= 3, seen
    found = places(spot_cluster, "mixed-v1")
    assert (found.total(), sum(found[f"on-demand@{node}"] for node in STEADY)) == (3, 2)


SCALED = 'scaling {\n min = 2\n max = 6\n evaluation_interval = "2s"\n cooldown = "20s"\n query = "vector(4)"\n }'


def test_the_autoscaler_counts_both_kinds_and_not_those_of_a_node_that_is_gone(
    spot_cli: Cli, spot_cluster: RunningCluster, nodes: dict[str, ClientNode], write_service: WriteService
) -> None:
    spot_cli("platform", "up")
    spot_cli("up", write_service("scaled", "only = true\n on_demand_min = 1", SCALED))
    prometheus = PrometheusApi(f"http://127.0.0.1:{ports_at(spot_cluster.offset).prometheus}")

    def groups() -> dict[str, int]:
        job = requests.get(f"{spot_cluster.nomad}/v1/job/scaled-v1", timeout=30).json()
        return {group["Name"]: group["Count"] for group in job["TaskGroups"]}

    def measured() -> list[float]:
        return prometheus.values('count(up{service="scaled"})')

    wait_for(lambda: groups() == {"serve": 3, "on-demand": 1} and measured() == [4.0], seconds=WITHIN_S)
    nodes["spot-a"].kill()
    wait_for(lambda: nodes["spot-a"].status() == "down", seconds=WITHIN_S)
    wait_for(lambda: places(spot_cluster, "scaled-v1")["spot-b"] == 3, seconds=WITHIN_S)
    wait_for(lambda: serve(spot_cluster, "scaled-v1", 4) and measured() == [4.0], seconds=WITHIN_S)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        assert groups() == {"serve": 3, "on-demand": 1}
        time.sleep(1)
