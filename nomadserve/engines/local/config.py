"""What the two agents of a local cluster are told, as their JSON configuration files."""

from typing import Any

from nomadserve.engines.local import ports
from nomadserve.engines.local.record import Cluster

LOOPBACK = "127.0.0.1"
# They ask addresses that only a cloud's machines can reach: slow elsewhere, and one keeps the agent from starting.
CLOUD_FINGERPRINTERS = "env_aws,env_gce,env_azure,env_digitalocean"


def consul_config(cluster: Cluster) -> dict[str, Any]:
    """One server that elects itself; on disk, so that config entries outlive a restart of the agent."""
    return {
        "server": True,
        "bootstrap_expect": 1,
        "node_name": f"nomadserve-{cluster.name}",
        "data_dir": str(cluster.home.consul_data),
        "bind_addr": LOOPBACK,
        "client_addr": LOOPBACK,
        "advertise_addr": LOOPBACK,
        "ports": {
            "server": cluster.ports.consul_server,
            "serf_lan": cluster.ports.consul_serf,
            "serf_wan": -1,
            "http": cluster.ports.consul_http,
            "https": -1,
            "grpc": cluster.ports.consul_grpc,
            "grpc_tls": -1,
            "dns": cluster.ports.consul_dns,
        },
        "connect": {"enabled": True},
        "ui_config": {"enabled": True},
        "performance": {"raft_multiplier": 1},  # elections in a second or two
        "disable_update_check": True,
        "log_level": "INFO",
    }


def nomad_config(cluster: Cluster) -> dict[str, Any]:
    """Server and client in one agent; everything is advertised on loopback."""
    http, rpc, serf = cluster.ports.nomad()
    first, last = ports.dynamic_range(cluster.slot)
    return {
        "name": f"nomadserve-{cluster.name}",
        "data_dir": str(cluster.home.nomad_data),
        "bind_addr": LOOPBACK,
        "ports": {"http": http, "rpc": rpc, "serf": serf},
        "advertise": {"http": LOOPBACK, "rpc": LOOPBACK, "serf": LOOPBACK},
        "server": {"enabled": True, "bootstrap_expect": 1, "raft_multiplier": 1},
        "client": {
            "enabled": True,
            "network_interface": "lo",
            "min_dynamic_port": first,
            "max_dynamic_port": last,
            "options": {"fingerprint.denylist": CLOUD_FINGERPRINTERS},
        },
        "plugin": [{"raw_exec": [{"config": [{"enabled": True}]}]}],
        "consul": {
            "address": f"{LOOPBACK}:{cluster.ports.consul_http}",
            "grpc_address": f"{LOOPBACK}:{cluster.ports.consul_grpc}",
            "server_auto_join": False,
            "client_auto_join": False,
        },
        "telemetry": {"prometheus_metrics": True, "publish_allocation_metrics": True, "publish_node_metrics": True},
        "disable_update_check": True,
        "log_level": "INFO",
    }


def nomad_keys_config(cluster: Cluster) -> dict[str, Any]:
    """The same server, without client and Consul: for making its signing keys."""
    full = nomad_config(cluster)
    return {key: full[key] for key in full if key not in ("client", "plugin", "consul", "telemetry")}
