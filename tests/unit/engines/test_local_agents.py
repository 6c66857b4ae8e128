"""What agents are told."""

from typing import Any

import pytest

from nomadserve.engines.local.config import consul_config, nomad_config, nomad_keys_config
from nomadserve.engines.local.ports import ports_at
from nomadserve.engines.local.record import Cluster


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(name="demo", offset=40, slot=4, ports=ports_at(40))


def addresses(value: Any) -> set[str]:
    """Every text in a configuration that looks like an address."""
    if isinstance(value, dict):
        return set().union(*map(addresses, value.values()))
    if isinstance(value, list):
        return set().union(*map(addresses, value))
    return {value.partition(":")[0]} if isinstance(value, str) and value.count(".") == 3 else set()


def test_agents_know_no_address_but_loopback(cluster: Cluster) -> None:
    assert addresses(consul_config(cluster)) == {"127.0.0.1"}
    assert addresses(nomad_config(cluster)) == {"127.0.0.1"}


def test_agents_get_every_port_of_the_cluster(cluster: Cluster) -> None:
    told = [*consul_config(cluster)["ports"].values(), *nomad_config(cluster)["ports"].values()]

    assert {port for port in told if port > 0} == {*cluster.ports.consul(), *cluster.ports.nomad()}


def test_nomad_runs_tasks_without_root_and_asks_no_cloud(cluster: Cluster) -> None:
    config = nomad_config(cluster)

    assert config["plugin"] == [{"raw_exec": [{"config": [{"enabled": True}]}]}]
    assert config["client"]["options"]["fingerprint.denylist"] == "env_aws,env_gce,env_azure,env_digitalocean"
    assert (config["client"]["min_dynamic_port"], config["client"]["max_dynamic_port"]) == (20800, 20999)


def test_server_that_makes_keys_is_the_same_without_a_client(cluster: Cluster) -> None:
    keys, full = nomad_keys_config(cluster), nomad_config(cluster)

    assert "client" not in keys
    assert "consul" not in keys
    assert {key: full[key] for key in keys} == keys
