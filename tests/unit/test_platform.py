import json
from typing import Any

import hcl2
import pytest

from nomadserve import platform, promql
from nomadserve.engines.local import platform as local
from nomadserve.engines.local.ports import ports_at
from nomadserve.engines.local.record import Cluster
from nomadserve.platform import PARTS, Part, Settings, render_part


@pytest.fixture
def loopback() -> Settings:
    return local.settings(Cluster(name="demo", offset=40, slot=4, ports=ports_at(40)))


def group_of(part: Part, settings: Settings) -> dict[str, Any]:
    [job] = hcl2.loads(render_part(part, settings))["job"]
    [body] = job.values()
    assert list(job) == [f'"nomadserve-{part}"']
    group: dict[str, Any] = body["group"][0][f'"{part}"']
    return group


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_a_local_cluster_bind_loopback_only(part: Part, loopback: Settings) -> None:
    hcl = render_part(part, loopback)
    assert "0.0.0.0" not in hcl
    assert "127.0.0.1" in hcl


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_found_in_consul_by_its_name_and_checked_there(part: Part, loopback: Settings) -> None:
    service = group_of(part, loopback)["service"][0]
    assert service["name"] == f'"{platform.SERVICES[part]}"'
    assert service["provider"] == '"consul"'
    assert service["check"]


@pytest.mark.parametrize("part", PARTS)
def test_no_part_ever_gives_up_restarting(part: Part, loopback: Settings) -> None:
    assert group_of(part, loopback)["restart"][0]["mode"] == '"delay"'


def test_gateway_of_a_local_cluster_uses_its_ports(loopback: Settings) -> None:
    hcl = render_part("gateway", loopback)
    sidecar = registration(hcl)["connect"]["sidecar_service"]
    config = sidecar["proxy"]["config"]
    listener, clusters = (config.pop(f"envoy_extra_static_{what}_json") for what in ("listeners", "clusters"))
    assert json.loads(listener)["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 8122}
    assert [cluster["name"] for cluster in json.loads(f"[{clusters}]")] == ["consul", "replica"]
    assert sidecar == {
        "address": "127.0.0.1",
        "port": 8121,
        "proxy": {
            "config": {"bind_address": "127.0.0.1", "envoy_prometheus_bind_addr": "127.0.0.1:9142"},
            "upstreams": [
                {"destination_name": "nomadserve", "local_bind_address": "127.0.0.1", "local_bind_port": 8120}
            ],
        },
    }
    assert "-admin-bind 127.0.0.1:19040" in hcl
    assert "-grpc-addr http://127.0.0.1:8542" in hcl


def test_every_gateway_finds_its_own_waiting_room_by_loopback() -> None:
    hcl = render_part("gateway", Settings(bind_address="10.0.0.5"))
    config = registration(hcl)["connect"]["sidecar_service"]["proxy"]["config"]
    assert (
        json.loads(config["envoy_extra_static_listeners_json"])["address"]["socket_address"]["address"] == "127.0.0.1"
    )
    room = json.loads(hcl.split("<<-JSON\n")[2].partition("JSON\n")[0])["service"]
    assert (room["name"], room["address"], room["port"]) == ("nomadserve-waiting", "127.0.0.1", 8082)


def test_what_wakes_a_version_is_measured_every_two_seconds(loopback: Settings) -> None:
    hcl = render_part("prometheus", loopback)
    job = hcl.partition(f"job_name: {promql.WAKES}")[2].partition("job_name")[0]
    assert "scrape_interval: 2s" in job
    for name in ("rq_total", "rq_active", "cx_none_healthy"):
        assert job.count(name) == 2, "asked for, and kept"
    assert "replacement: nomadserve_gateway_$1" in job


def test_gateway_of_a_real_cluster_binds_every_address_but_not_its_admin_page() -> None:
    hcl = render_part("gateway", Settings(datacenters=("eu", "us")))
    sidecar = registration(hcl)["connect"]["sidecar_service"]
    assert "address" not in sidecar
    assert sidecar["proxy"]["upstreams"][0]["local_bind_address"] == "0.0.0.0"
    assert 'datacenters = ["eu", "us"]' in hcl
    assert "-admin-bind 127.0.0.1:19000" in hcl


def test_prometheus_labels_replicas_as_the_policies_select_them(loopback: Settings) -> None:
    hcl = render_part("prometheus", loopback)
    for label in ("service", "version", "alloc"):
        assert f'{label}: "{{{{ index .ServiceMeta "{label}" }}}}"' in hcl
    assert 'if .Tags | contains "nomadserve"' in hcl
    assert 'range service "nomadserve-gateway-metrics|any"' in hcl


def test_prometheus_keeps_its_data_beside_its_allocation(loopback: Settings) -> None:
    group = group_of("prometheus", loopback)
    assert group["ephemeral_disk"][0]["sticky"] is True
    assert "--storage.tsdb.path=${NOMAD_ALLOC_DIR}/data/prometheus" in str(group["task"])


def test_autoscaler_asks_the_prometheus_that_consul_names(loopback: Settings) -> None:
    hcl = render_part("autoscaler", loopback)
    assert '{{- with service "prometheus" }}' in hcl
    assert 'address   = "http://127.0.0.1:4686"' in hcl
    assert ":9130" not in hcl, "its address is not written down anywhere else"


def test_containers_bring_an_image_and_the_network_of_their_node() -> None:
    for part, image in (("prometheus", "prom/prometheus"), ("autoscaler", "hashicorp/nomad-autoscaler")):
        hcl = render_part(part, Settings(driver="docker"))
        assert f'"docker.io/{image}:' in hcl
        assert 'network_mode = "host"' in hcl
    assert "image" not in render_part("prometheus", Settings())


def test_entries_are_defaults_before_the_router() -> None:
    assert [(entry["Kind"], entry["Name"]) for entry in platform.ENTRIES] == [
        ("service-defaults", "nomadserve"),
        ("service-defaults", "nomadserve-waiting"),
        ("service-defaults", "nomadserve-gateway"),
        ("service-router", "nomadserve"),
    ]


def registration(hcl: str) -> Any:
    """The service that the gateway's task registers at its agent."""
    text = hcl.partition("<<-JSON\n")[2].partition("JSON\n")[0]
    return json.loads(text)["service"]
