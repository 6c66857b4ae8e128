"""What agents and the gateway are told."""

import json
from typing import Any

import hcl2
import pytest

from nomadserve.engines.local import gateway
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


def test_gateway_job_of_a_local_cluster_binds_loopback_only(cluster: Cluster) -> None:
    hcl = gateway.gateway_job(cluster)

    assert "0.0.0.0" not in hcl
    assert registration(hcl)["connect"]["sidecar_service"] == {
        "address": "127.0.0.1",
        "port": 8121,
        "proxy": {
            "config": {"bind_address": "127.0.0.1"},
            "upstreams": [
                {"destination_name": "nomadserve", "local_bind_address": "127.0.0.1", "local_bind_port": 8120}
            ],
        },
    }
    assert "-admin-bind 127.0.0.1:19040" in hcl
    assert "-grpc-addr http://127.0.0.1:8542" in hcl


def test_gateway_job_of_a_real_cluster_binds_every_address_but_not_its_admin_page() -> None:
    hcl = gateway.render_gateway(datacenters=("eu", "us"))

    sidecar = registration(hcl)["connect"]["sidecar_service"]
    assert "address" not in sidecar
    assert sidecar["proxy"]["upstreams"][0]["local_bind_address"] == "0.0.0.0"
    assert 'datacenters = ["eu", "us"]' in hcl
    assert "-admin-bind 127.0.0.1:19000" in hcl


def test_gateway_job_has_the_names_that_other_verbs_rely_on(cluster: Cluster) -> None:
    hcl = gateway.gateway_job(cluster)

    [job] = hcl2.loads(hcl)["job"]
    [body] = job.values()
    [group] = body["group"]
    assert list(job) == ['"nomadserve-gateway"']
    assert list(group) == ['"gateway"']
    [service] = group['"gateway"']["service"]
    assert (service["name"], service["port"], service["provider"]) == ('"nomadserve"', '"gateway"', '"consul"')


def test_platform_entries_are_defaults_before_the_router() -> None:
    assert [(entry["Kind"], entry["Name"]) for entry in gateway.ENTRIES] == [
        ("service-defaults", "nomadserve"),
        ("service-defaults", "nomadserve-gateway"),
        ("service-router", "nomadserve"),
    ]


def registration(hcl: str) -> Any:
    """The service that the gateway's task registers at its agent."""
    text = hcl.partition("<<-JSON\n")[2].partition("JSON\n")[0]
    return json.loads(text)["service"]
