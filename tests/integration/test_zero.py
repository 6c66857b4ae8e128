"""Zero and back on the shared cluster: asleep without requests, woken by one, with the seconds that it takes.

The tests run in their order on one service, each beginning where the one before it ended.
"""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.integration.local_clusters import Cli, RunningCluster
from tests.integration.test_scaling import count, stays, wait_for

MODEL = '{"inputs": [{"name": "x", "shape": [1]}], "outputs": [{"name": "y", "shape": [1]}], "delay_ms": 10}'
BODY = json.dumps({"inputs": {"x": [[1]]}})
IDLE_S = 10
HOLD_S = 30  # what the gateway keeps a request for that says nothing of waiting
ASLEEP_WITHIN_S = IDLE_S + 170.0
# Gateways are scraped, and policies evaluated, every 2 s, and the autoscaler acts in seconds: after so long without a
# replica no request of before is going to start one.
WOKEN_WITHIN_S = IDLE_S + 5.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero")
    (folder / "quick.json").write_text(MODEL)
    return folder


def service_file(folder: Path, *, version: str = "v1", cooldown: str = "5s", queue: int = 32) -> str:
    path = folder / f"nap-{version}-{cooldown}-{queue}.hcl.j2"
    path.write_text(
        f"""service "nap" {{
  version = "{version}"
  model "quick" {{
    source    = "quick.json"
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
    min      = 0
    max      = 2
    idle     = "{IDLE_S}s"
    cooldown = "{cooldown}"
    target "in_flight" {{
      value  = 4
      window = "10s"
    }}
  }}
}}
"""
    )
    return str(path)


@pytest.fixture(scope="module")
def nap(cli: Cli, folder: Path) -> Iterator[None]:
    """Service `nap`, which had to show that it gets healthy, and may sleep from now on."""
    deployed = cli("up", service_file(folder))
    assert "nap-v1 took" in deployed.stderr
    yield
    cli("down", "nap", "--yes")


def ask(cluster: RunningCluster, **headers: str) -> tuple[int, http.client.HTTPMessage, str, float]:
    """One request through the gateway: status, headers, body, seconds."""
    connection = http.client.HTTPConnection(urlsplit(cluster.gateway).netloc, timeout=60)
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    begin = time.monotonic()
    connection.request("POST", "/v1/inference", BODY, {"Host": "nap.service.consul", **sent})
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    return reply.status, reply.headers, body, time.monotonic() - begin


def state_of(cli: Cli, version: str) -> str:
    found = cli.json("status", "nap")
    assert isinstance(found, list)
    return next(str(each["state"]) for each in found[0]["versions"] if each["version"] == version)


def wait_until_asleep(cli: Cli, version: str = "v1") -> None:
    """Until `status` says so: no replica is left that could answer."""
    wait_for(lambda: state_of(cli, version) == "asleep", seconds=ASLEEP_WITHIN_S)


def test_without_requests_the_last_replica_goes(nap: None, cli: Cli, cluster: RunningCluster) -> None:
    wait_until_asleep(cli)
    assert count(cluster, "nap-v1") == 0
    replicas = requests.get(f"{cluster.nomad}/v1/job/nap-v1/allocations", timeout=5).json()
    assert [each["ClientStatus"] for each in replicas] == ["complete"], "one that drains could still answer"


def test_the_request_that_wakes_it_is_kept_and_answered(nap: None, cluster: RunningCluster) -> None:
    status, headers, _, seconds = ask(cluster)
    assert (status, headers["x-nomadserve-version"]) == (200, "v1")
    assert count(cluster, "nap-v1") == 1
    print(f"from zero to an answer: {seconds:.1f} s")


def test_a_request_in_flight_for_longer_than_idle_keeps_it(nap: None, cluster: RunningCluster) -> None:
    url = urlsplit(cluster.gateway)
    assert url.hostname and url.port
    with socket.create_connection((url.hostname, url.port), timeout=30) as client:
        head = f"POST /v1/inference HTTP/1.1\r\nHost: nap.service.consul\r\nContent-Length: {len(BODY)}\r\n\r\n"
        client.sendall((head + BODY[:5]).encode())
        wait_for(lambda: count(cluster, "nap-v1") == 1)  # woken by it, where the test before was over for long
        assert stays(lambda: count(cluster, "nap-v1") == 1, seconds=IDLE_S + 8)
        client.sendall(BODY[5:].encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_who_does_not_want_to_wait_is_told_when_to_come_back(nap: None, cli: Cli, cluster: RunningCluster) -> None:
    wait_until_asleep(cli)
    status, headers, body, seconds = ask(cluster, Prefer="wait=0")
    assert (status, headers["content-type"]) == (503, "application/json")
    assert json.loads(body)["reason"] == "starting"
    assert 1 <= int(headers["retry-after"]) <= 60
    assert headers["x-nomadserve-split"] == "v1=100"
    assert seconds < HOLD_S
    assert cli("call", "nap", BODY).stdout.startswith("{"), "the refused request has woken it all the same"


def test_a_count_of_zero_survives_an_up_that_changes_no_replica(
    nap: None, cli: Cli, cluster: RunningCluster, folder: Path
) -> None:
    wait_until_asleep(cli)
    assert "asleep (the next request starts it)" in cli("up", service_file(folder), "--yes").stderr
    assert "asleep (the next request starts it)" in cli("up", service_file(folder, cooldown="6s"), "--yes").stderr
    assert stays(lambda: count(cluster, "nap-v1") == 0, seconds=6)


def test_a_changed_replica_has_to_show_that_it_gets_healthy(
    nap: None, cli: Cli, cluster: RunningCluster, folder: Path
) -> None:
    assert "1 of 1 replicas healthy" in cli("up", service_file(folder, queue=40), "--yes").stderr
    deployment = requests.get(f"{cluster.nomad}/v1/job/nap-v1/deployment", timeout=5).json()
    assert deployment["Status"] == "successful"
    assert deployment["TaskGroups"]["serve"]["HealthyAllocs"] == 1


def test_another_version_answers_while_one_wakes(nap: None, cli: Cli, cluster: RunningCluster, folder: Path) -> None:
    cli("up", service_file(folder, version="v2"))
    wait_until_asleep(cli, "v2")
    assert ask(cluster)[0] == 200, "v1 is awake"
    moved = cli("split", "nap", "v1=50", "v2=50")
    assert "warning: `v2` has 0 healthy replicas" in moved.stderr

    def only_v1_is_awake() -> bool:
        status, headers, *_ = ask(cluster, x_nomadserve_version="v1")
        return (status, headers["x-nomadserve-version"]) == (200, "v1") and state_of(cli, "v2") == "asleep"

    # What `split` itself asked may wake v2, within seconds. Whoever asks for v1 keeps that awake meanwhile.
    wait_for(lambda: stays(only_v1_is_awake, seconds=WOKEN_WITHIN_S), seconds=ASLEEP_WITHIN_S + 2 * WOKEN_WITHIN_S)
    status, headers, *_ = ask(cluster, x_nomadserve_version="v2")
    assert (status, headers["x-nomadserve-version"]) == (200, "v1")
    wait_for(lambda: ask(cluster, x_nomadserve_version="v2")[1]["x-nomadserve-version"] == "v2")
