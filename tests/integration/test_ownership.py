"""What belongs to somebody else is never touched, and what was cut short can be repeated."""

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from nomadserve import entries
from nomadserve.consul_api import ConsulApi
from nomadserve.nomad_api import NomadApi
from nomadserve.operations import down
from nomadserve.operations.cluster import Cluster, cluster_from
from tests.integration.conftest import Cli, RunningCluster
from tests.integration.test_traffic import (
    DIGITS,
    consul_entries,
    fails,
    healthy,
    service_file,
    wait_for,
)


@pytest.fixture
def doors(cluster: RunningCluster) -> Iterator[Cluster]:
    with cluster_from(cluster.environment) as both:
        yield both


def put(cluster: RunningCluster, entry: dict[str, Any]) -> None:
    requests.put(f"{cluster.consul}/v1/config", json=entry, timeout=30).raise_for_status()


def delete(cluster: RunningCluster, kind: str, name: str) -> None:
    requests.delete(f"{cluster.consul}/v1/config/{kind}/{name}", timeout=30).raise_for_status()


def test_an_entry_of_somebody_else_is_neither_overwritten_nor_deleted(
    cli: Cli, cluster: RunningCluster, tmp_path: Path
) -> None:
    put(cluster, {"Kind": "service-defaults", "Name": "web", "Protocol": "tcp", "Meta": {"owner": "ann"}})
    before = consul_entries(cluster)
    refused = fails(cli, 2, "up", service_file(tmp_path, "web"))
    assert "Consul has a service-defaults `web` already, and it is not nomadserve's" in refused.stderr
    assert "there is no service `web`" in fails(cli, 2, "down", "web", "--yes").stderr
    assert consul_entries(cluster) == before
    delete(cluster, "service-defaults", "web")


@pytest.mark.parametrize("name", ["consul", "nomad"])
def test_a_name_that_the_catalog_has_is_refused(cli: Cli, tmp_path: Path, name: str) -> None:
    refused = fails(cli, 2, "up", service_file(tmp_path, name))
    assert f"`{name}.service.consul` already names something else" in refused.stderr


def test_a_splitter_of_somebody_else_disturbs_nobody(cli: Cli, cluster: RunningCluster) -> None:
    put(cluster, {"Kind": "service-defaults", "Name": "shop", "Protocol": "http"})
    put(cluster, {"Kind": "service-defaults", "Name": "their", "Protocol": "http"})
    put(cluster, {"Kind": "service-splitter", "Name": "their", "Splits": [{"Weight": 100, "Service": "shop"}]})
    assert "their" not in cli("status").stdout
    for kind, name in [("service-splitter", "their"), ("service-defaults", "their"), ("service-defaults", "shop")]:
        delete(cluster, kind, name)


@pytest.fixture
def two_versions(cli: Cli, tmp_path: Path) -> Iterator[str]:
    for version in ("v1", "v2"):
        cli("up", service_file(tmp_path, "cut", version=version))
    yield "cut"
    cli("down", "cut", "--yes", check=False)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_down_that_was_cut_short_is_finished_by_the_next_one(
    cli: Cli, cluster: RunningCluster, doors: Cluster, two_versions: str, steps: int
) -> None:
    events = down.down_version(doors, "cut", "v2")
    for _ in range(steps):
        next(events)
    events.close()  # what Ctrl-C does
    cli("down", "cut", "v2")
    assert not [name for name in consul_entries(cluster) if "cut-v2" in name]
    cli("down", "cut", "--yes")
    assert not [name for name in consul_entries(cluster) if "cut" in name]


def test_what_an_up_left_that_was_cut_short_can_be_taken_down(cli: Cli, cluster: RunningCluster) -> None:
    for name in ("half-v1", "half"):
        put(cluster, entries.service_defaults(name) | {"Meta": {"nomadserve": "half"}})
    cli("down", "half", "--yes")
    assert not [name for name in consul_entries(cluster) if "half" in name]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_mended_cause_is_tried_again_by_the_same_command(cli: Cli, tmp_path: Path) -> None:
    model = (DIGITS / "models" / "digits-v1.onnx").read_bytes()
    folder = tmp_path / "models"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = f"http://127.0.0.1:{server.server_port}/m.onnx"
        path = Path(service_file(tmp_path, "fetched", source=source))
        path.write_text(path.read_text().replace(f'"{source}"', f'"{source}"\n checksum = "{sha256(model)}"'))
        assert "did not become healthy" in fails(cli, 1, "up", str(path)).stderr
        (folder / "m.onnx").write_bytes(model)
        again = cli("up", str(path))
        server.shutdown()
    assert "the last deployment of this version failed: it is tried again" in again.stderr
    assert "nothing to change" in cli("plan", str(path)).stdout
    cli("down", "fetched", "--yes")


def sha256(content: bytes) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_bounds_that_move_past_the_live_count_move_it(cli: Cli, cluster: RunningCluster, tmp_path: Path) -> None:
    def with_bounds(low: int, high: int) -> str:
        scaling = f'scaling {{\n min = {low}\n max = {high}\n target "in_flight" {{\n value = 4\n }}\n }}'
        return service_file(tmp_path, "bounds", body=scaling)

    def count() -> int:
        job = requests.get(f"{cluster.nomad}/v1/job/bounds-v1", timeout=30).json()
        found: int = job["TaskGroups"][0]["Count"]
        return found

    cli("up", with_bounds(1, 3))
    assert count() == 1
    cli("up", with_bounds(2, 3))
    assert count() == 2
    cli("up", with_bounds(1, 1))
    assert count() == 1
    cli("down", "bounds", "--yes")


def test_a_service_in_another_namespace_is_found_by_every_verb(
    cli: Cli, cluster: RunningCluster, tmp_path: Path
) -> None:
    requests.post(f"{cluster.nomad}/v1/namespace/team", json={"Name": "team"}, timeout=30).raise_for_status()
    file = service_file(tmp_path, "away", body='namespace = "team"')
    cli("up", file)
    assert "nothing to change" in cli("up", file).stderr
    wait_for(lambda: healthy(cli, "away") == 1)
    wait_for(lambda: "healthy" in cli("status", "away").stdout)
    cli("down", "away", "--yes")
    jobs = requests.get(f"{cluster.nomad}/v1/jobs", params={"namespace": "team"}, timeout=30).json()
    assert jobs == []


def test_an_up_that_another_one_overtakes_waits_for_the_weights_that_hold(cli: Cli, tmp_path: Path) -> None:
    cli("up", service_file(tmp_path, "race"))
    found: list[int] = []
    files = [service_file(tmp_path / version, "race", version=version) for version in ("v2", "v3")]
    threads = [
        threading.Thread(target=lambda file=file: found.append(cli("up", file, check=False).returncode))
        for file in files
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Either both were in time, or the slower one was told that it was overtaken, and lost nothing by it.
    assert sorted(found)[0] == 0
    for file in files:
        cli("up", file)
    wait_for(lambda: healthy(cli, "race") == 3)
    cli("down", "race", "--yes")


def test_up_says_so_where_a_deployed_version_is_not_healthy_now(
    cli: Cli, cluster: RunningCluster, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes((DIGITS / "models" / "digits-v1.onnx").read_bytes())
    file = service_file(tmp_path, "sick", source=str(model))
    cli("up", file)
    content = model.read_bytes()
    model.unlink()
    with cluster_from(cluster.environment) as doors:
        (stub,) = doors.nomad.allocations("sick-v1")
    requests.put(f"{cluster.nomad}/v1/client/allocation/{stub['ID']}/restart", json={}, timeout=30).raise_for_status()
    wait_for(lambda: healthy(cli, "sick") == 0)
    model.write_bytes(content)
    model.chmod(0o644)
    assert cli("up", file, check=False).returncode in (0, 1)
    wait_for(lambda: healthy(cli, "sick") == 1)
    assert "as the file says, and healthy" in cli("up", file).stderr
    cli("down", "sick", "--yes")


def test_the_doors_take_an_empty_variable_as_not_set() -> None:
    empty = {"NOMAD_ADDR": "", "NOMAD_CACERT": "", "CONSUL_HTTP_ADDR": "", "CONSUL_CACERT": ""}
    nomad, consul = NomadApi.from_environment(empty), ConsulApi.from_environment(empty)
    assert nomad.address == "http://127.0.0.1:4646"
    assert consul.address == "http://127.0.0.1:8500"
    nomad.close()
    consul.close()
