"""The local cluster, on real processes."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import dns.resolver
import psutil
import pytest
import requests

from nomadserve import entries
from nomadserve.engines.local.ports import dynamic_range, ports_at, taken
from nomadserve.engines.local.record import Cluster
from tests.integration.cluster_processes import agents, agents_of, command_of, envoy_of, of_home, the_envoy
from tests.integration.local_clusters import Cli, RunningCluster, free_offset, home_of

StartCluster = Callable[..., RunningCluster]
PATIENCE_S = 180.0

SLEEPER = """
job "sleeper" {
  group "sleeper" {
    task "sleep" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", "cd /; sleep 86399 & exec sleep 86399"]
      }
      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
"""


def test_second_up_changes_nothing_and_says_so(bare_cli: Cli, cluster: RunningCluster) -> None:
    before = agents(cluster.home)

    again = bare_cli("dev", "up", "--name", cluster.name)

    assert f"cluster `{cluster.name}` is already up" in again.stderr
    assert agents(cluster.home) == before


def test_up_with_another_offset_than_the_running_cluster_has_is_refused(bare_cli: Cli, cluster: RunningCluster) -> None:
    refused = bare_cli("dev", "up", "--name", cluster.name, "--port-offset", "7", check=False)

    assert refused.returncode == 2
    assert f"error: cluster `{cluster.name}` has port offset {cluster.offset}, not 7" in refused.stderr
    assert f"hint: take it down first: `nomadserve dev down --name {cluster.name}`" in refused.stderr


def test_everything_listens_on_loopback_only(cluster: RunningCluster) -> None:
    fixed = set(ports_at(cluster.offset).all())
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for connection in psutil.net_connections("inet")
        if connection.laddr and connection.laddr.port in fixed and connection.status in ("LISTEN", "NONE")
    }

    assert {port for _, port in listening} == fixed
    assert {ip for ip, _ in listening} == {"127.0.0.1"}


def test_status_shows_every_part_healthy_with_its_page(bare_cli: Cli, cluster: RunningCluster) -> None:
    is_whole(bare_cli, cluster.name)
    status = bare_cli.json("dev", "status", "--name", cluster.name)

    assert isinstance(status, dict)
    assert [(part["name"], part["healthy"]) for part in status["parts"]] == [
        ("consul", True),
        ("nomad", True),
        ("gateway", True),
        ("prometheus", True),
        ("autoscaler", True),
    ]
    for part in status["parts"][:2]:
        assert "html" in requests.get(part["url"], timeout=30).headers["Content-Type"]
    assert status["environment"] == cluster.environment


def test_env_brings_the_programs_that_hints_name_where_a_shell_has_none(bare_cli: Cli, cluster: RunningCluster) -> None:
    def shell(path: str) -> str:
        environment = bare_cli.environment | {"PATH": path}
        lines = Cli(environment)("dev", "env", "--name", cluster.name).stdout
        command = ["/bin/sh", "-euc", f"{lines}\nnomad node status; consul members; echo $PATH"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    printed = shell("/usr/bin:/bin")
    assert f"nomadserve-{cluster.name}" in printed
    assert printed.splitlines()[-1].startswith("/usr/bin:/bin:")
    whole = printed.splitlines()[-1]
    assert shell(whole).splitlines()[-1] == whole


def test_env_and_status_of_a_cluster_that_is_not_up_say_how_to_start_it(bare_cli: Cli) -> None:
    for verb in ("env", "status"):
        refused = bare_cli("dev", verb, "--name", "nowhere", check=False)

        assert refused.returncode == 2
        assert refused.stdout == ""
        assert refused.stderr == (
            "error: cluster `nowhere` is not up\nhint: start it: `nomadserve dev up --name nowhere`\n"
        )


def test_name_that_is_no_dns_label_is_refused(bare_cli: Cli) -> None:
    refused = bare_cli("dev", "up", "--name", "../etc", check=False)

    assert refused.returncode == 2
    assert "error: `../etc` can't be the name of a cluster" in refused.stderr


def test_gateway_is_named_by_consul_dns_and_answers(cluster: RunningCluster) -> None:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [cluster.consul_dns[0]], cluster.consul_dns[1]

    def named() -> list[int]:
        try:
            return [answer.port for answer in resolver.resolve("nomadserve.service.consul", "SRV")]
        except dns.resolver.NXDOMAIN:  # one check that comes late, and Consul names it no more until the next
            return []

    eventually(lambda: named() == [ports_at(cluster.offset).gateway], "the gateway's name")
    # No service is routed yet: Envoy itself answers.
    reply = requests.get(cluster.gateway, timeout=30)
    assert (reply.status_code, reply.headers["server"]) == (503, "envoy")


def test_config_entries_of_the_platform_are_there(cluster: RunningCluster) -> None:
    defaults = requests.get(f"{cluster.consul}/v1/config/service-defaults/nomadserve-gateway", timeout=30).json()
    router = requests.get(f"{cluster.consul}/v1/config/service-router/nomadserve", timeout=30).json()

    assert defaults["EnvoyExtensions"][0]["Name"] == "builtin/property-override"
    assert router["Routes"] == []


def test_gateway_works_again_after_envoy_died(cluster: RunningCluster) -> None:
    envoy = the_envoy(cluster.home)

    envoy.kill()

    eventually(lambda: envoy_of(cluster.home) not in (None, envoy) and answers(cluster.gateway), "a new Envoy")


def test_allocations_get_ports_of_the_clusters_own_range(cluster: RunningCluster) -> None:
    record = json.loads((cluster.home / "cluster.json").read_text())
    node = requests.get(f"{cluster.nomad}/v1/nodes", timeout=30).json()[0]
    resources = requests.get(f"{cluster.nomad}/v1/node/{node['ID']}", timeout=30).json()["NodeResources"]

    assert (resources["MinDynamicPort"], resources["MaxDynamicPort"]) == dynamic_range(record["slot"])


def test_two_clusters_live_side_by_side_and_end_alone(
    bare_cli: Cli, cluster: RunningCluster, start_cluster: StartCluster, tmp_path: Path
) -> None:
    extra = tmp_path / "extra.hcl"
    extra.write_text('client {\n  meta {\n    told = "by-a-file"\n  }\n}\n')

    other = start_cluster("other", "--nomad-config", str(extra))

    node = requests.get(f"{other.nomad}/v1/nodes", timeout=30).json()[0]
    assert requests.get(f"{other.nomad}/v1/node/{node['ID']}", timeout=30).json()["Meta"]["told"] == "by-a-file"
    listed = bare_cli.json("dev", "list")
    assert isinstance(listed, list)
    health = {row["name"]: row["healthy"] for row in listed}  # other tests' clusters may be among them
    assert (health[cluster.name], health[other.name]) == (True, True)
    bare_cli("dev", "down", "--name", other.name)
    assert_nothing_left(other)
    assert answers(cluster.gateway)


def test_offset_whose_ports_are_taken_is_refused_by_name_of_port(bare_cli: Cli, cluster: RunningCluster) -> None:
    refused = bare_cli("dev", "up", "--name", "late", "--port-offset", str(cluster.offset), check=False)

    assert refused.returncode == 2
    assert f"at port offset {cluster.offset} these ports are taken: {4646 + cluster.offset}" in refused.stderr
    assert "not up: nothing to do" in bare_cli("dev", "down", "--name", "late").stderr


def test_down_after_normal_use_leaves_nothing(bare_cli: Cli, start_cluster: StartCluster) -> None:
    cluster = start_cluster("normal")
    sleepers = run_sleeper(cluster)

    down = bare_cli("dev", "down", "--name", cluster.name)

    assert f"cluster `{cluster.name}` is down" in down.stderr
    assert_nothing_left(cluster, sleepers)
    assert "was not up: nothing to do" in bare_cli("dev", "down", "--name", cluster.name).stderr


def test_down_after_a_killed_nomad_agent_leaves_nothing(bare_cli: Cli, start_cluster: StartCluster) -> None:
    cluster = start_cluster("headless")
    sleepers = run_sleeper(cluster)
    kill_agent(cluster.home, "nomad.json")
    assert all(process.is_running() for process in sleepers)

    bare_cli("dev", "down", "--name", cluster.name)

    assert_nothing_left(cluster, sleepers)


def test_down_without_the_record_leaves_nothing(bare_cli: Cli, start_cluster: StartCluster) -> None:
    cluster = start_cluster("unrecorded")
    sleepers = run_sleeper(cluster)
    (cluster.home / "cluster.json").unlink()

    bare_cli("dev", "down", "--name", cluster.name)

    assert_nothing_left(cluster, sleepers)


@pytest.mark.parametrize("moment", ["cluster.json", "consul.json", "nomad.json", "a running gateway"])
def test_down_after_an_up_killed_half_way_leaves_nothing(bare_cli: Cli, state_home: Path, moment: str) -> None:
    name, offset = f"killed-{os.getpid()}", free_offset(state_home)
    home = home_of(state_home, name)
    up = bare_cli.start("dev", "up", "--name", name, "--port-offset", str(offset))
    try:
        reached = (lambda: envoy_of(home) is not None) if " " in moment else (home / moment).exists
        eventually(reached, moment)
        up.send_signal(signal.SIGKILL)
    finally:
        up.kill()
        up.wait()
        bare_cli("dev", "down", "--name", name)

    assert_nothing_left(RunningCluster(name, offset, {}, home))


def test_up_goes_on_where_a_killed_up_stopped(bare_cli: Cli, state_home: Path) -> None:
    name, offset = f"resumed-{os.getpid()}", free_offset(state_home)
    home = home_of(state_home, name)
    first = bare_cli.start("dev", "up", "--name", name, "--port-offset", str(offset))
    try:
        eventually((home / "consul.json").exists, "a started Consul")
        first.kill()
        first.wait()

        bare_cli("dev", "up", "--name", name)

        is_whole(bare_cli, name)
    finally:
        first.kill()
        first.wait()
        bare_cli("dev", "down", "--name", name)


def test_up_repairs_a_cluster_whose_agents_were_killed(bare_cli: Cli, start_cluster: StartCluster) -> None:
    cluster = start_cluster("repaired")
    sleepers = run_sleeper(cluster)
    routes = [{"Match": {"HTTP": {"PathPrefix": "/x"}}, "Destination": {"Service": "x"}}]
    config = f"{cluster.consul}/v1/config"
    for entry in (
        {"Kind": "service-defaults", "Name": "x", "Protocol": "http"},
        {"Kind": "service-router", "Name": "nomadserve", "Routes": routes},
    ):
        assert requests.put(config, json=entry, timeout=30).json() is True
    kill_agent(cluster.home, "nomad.json")
    kill_agent(cluster.home, "consul.json")
    assert bare_cli("dev", "status", "--name", cluster.name, check=False).returncode == 1

    bare_cli("dev", "up", "--name", cluster.name)

    is_whole(bare_cli, cluster.name)
    assert all(process.is_running() for process in sleepers)
    kept = requests.get(f"{config}/service-router/nomadserve", timeout=30).json()["Routes"]
    assert [route["Destination"]["Service"] for route in kept] == ["x"]


@pytest.mark.parametrize("harm", ["kill consul", "stop the gateway"])
def test_up_repairs_what_alone_is_missing(bare_cli: Cli, start_cluster: StartCluster, harm: str) -> None:
    cluster = start_cluster(harm.replace(" ", "-"))
    if harm == "kill consul":
        kill_agent(cluster.home, "consul.json")
    else:
        defaults = {"Kind": "service-defaults", "Name": "x", "Protocol": "http"}
        router = entries.with_routes(None, "x", entries.routes("x", {"v1": 300}))
        for entry in (defaults, defaults | {"Name": "x-v1"}, router):
            assert requests.put(f"{cluster.consul}/v1/config", json=entry, timeout=30).json() is True
        stop_slowly(cluster)
    bare_cli("dev", "up", "--name", cluster.name)
    is_whole(bare_cli, cluster.name)
    if harm == "stop the gateway":

        def named() -> list[int]:
            found = requests.get(f"{cluster.consul}/v1/health/service/x", timeout=30).json()
            return [each["Service"]["Port"] for each in found]

        eventually(lambda: named() == [ports_at(cluster.offset).gateway], "the name of the routed service")
    bare_cli("dev", "down", "--name", cluster.name)


def stop_slowly(cluster: RunningCluster) -> None:
    """Stop the gateway, and return while its allocation still ends, for three seconds more, and keeps its ports."""
    consul, held = cluster.home / "bin" / "consul", cluster.home / "held"
    real = consul.readlink()
    consul.unlink()
    held.touch()
    waits = f'while [ "$1 $2" = "services deregister" ] && [ -e {held} ]; do sleep 0.1; done'
    consul.write_text(f'#!/bin/sh\n{waits}\nexec {real} "$@"\n')
    consul.chmod(0o755)
    job = f"{cluster.nomad}/v1/job/nomadserve-gateway"
    requests.delete(job, timeout=30).raise_for_status()

    def deregisters() -> bool:
        (allocation,) = requests.get(f"{job}/allocations", timeout=30).json()
        return bool(allocation["TaskStates"]["deregister"]["State"] == "running")

    eventually(deregisters, "a gateway that deregisters")
    assert not answers(cluster.gateway)
    threading.Timer(3, held.unlink, kwargs={"missing_ok": True}).start()


def is_whole(cli: Cli, name: str) -> None:
    """Wait: Nomad registers services anew once it has found their tasks again, and checks pass a moment later."""
    eventually(lambda: cli("dev", "status", "--name", name, check=False).returncode == 0, "a whole cluster")


def test_agent_that_ends_at_once_is_an_error_with_its_last_words(
    bare_cli: Cli, state_home: Path, tmp_path: Path
) -> None:
    wrong, name = tmp_path / "wrong.hcl", f"wrong-{os.getpid()}"
    wrong.write_text("server {\n  nonsense = 7\n}\n")
    try:
        offset = str(free_offset(state_home))
        flags = ("--name", name, "--port-offset", offset, "--nomad-config", str(wrong))
        failed = bare_cli("dev", "up", *flags, check=False)
    finally:
        bare_cli("dev", "down", "--name", name)

    assert failed.returncode == 1
    assert "error: `nomad` ended; the last lines of its log:" in failed.stderr
    assert "nonsense" in failed.stderr


def eventually(claim: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < until, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        requests.get(url, timeout=30)
    except requests.RequestException:
        return False
    return True


def run_sleeper(cluster: RunningCluster) -> list[psutil.Process]:
    """Start a job that never ends by itself, and return its processes: one of them is nobody's foreground."""
    job = requests.post(f"{cluster.nomad}/v1/jobs/parse", json={"JobHCL": SLEEPER}, timeout=30).json()
    requests.post(f"{cluster.nomad}/v1/jobs", json={"Job": job}, timeout=30).raise_for_status()

    def sleepers() -> list[psutil.Process]:
        return [process for process in of_home(cluster.home) if "86399" in command_of(process)]

    eventually(lambda: len(sleepers()) == 2, "two sleepers")
    return sleepers()


def kill_agent(home: Path, config: str) -> None:
    """SIGKILL, and wait until it is gone."""
    assert agents_of(home, config)
    for agent in agents_of(home, config):
        agent.kill()
    eventually(lambda: not agents_of(home, config), f"the end of the agent of {config}")


def assert_nothing_left(cluster: RunningCluster, jobs: list[psutil.Process] | None = None) -> None:
    mentioning = subprocess.run(["pgrep", "-af", str(cluster.home)], capture_output=True, text=True, check=False)
    assert [command_of(process) for process in of_home(cluster.home)] == []
    assert mentioning.stdout == ""
    assert [
        process for process in jobs or [] if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ] == []
    assert str(cluster.home) not in Path("/proc/self/mountinfo").read_text()
    assert taken(ports_at(cluster.offset).all()) == []
    assert not cluster.home.exists()


def test_record_on_disk_is_what_the_program_reads(cluster: RunningCluster) -> None:
    record = json.loads((cluster.home / "cluster.json").read_text())

    assert set(record) == set(Cluster.__struct_fields__)
    assert record["ports"]["nomad_http"] == 4646 + cluster.offset
