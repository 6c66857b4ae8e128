"""The gateway's waiting room: a second listener of its Envoy, on loopback, for requests whose version has no replica.

It is the last resort of the failover of every version that may sleep (see `entries.resolver`), so Envoy itself sends a
request there, and only then. `jobs/waiting.lua` keeps it until Consul names a replica; it goes on to that one directly.

Facts about Envoy 1.36 (tried): the router never retries "no healthy upstream"; a failover is chosen anew for every
request; a Lua filter that waits in `httpCall` holds headers and body back, whatever the body's size; one that fails
lets the request pass, which then has no replica to go to and is answered 503.
"""

from typing import Any

from nomadserve.render import jobs_dir

# Consul takes 200 connections from one address; those that wait for more than these wait in Envoy.
CONSUL_CONNECTIONS_MAX = 100
WAITING_MAX = 4096

_EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"


def listener(port: int) -> dict[str, Any]:
    """Envoy's listener: the Lua filter, then the router to the replica that it found."""
    manager = {
        "@type": f"{_EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "waiting",
        "stream_idle_timeout": "0s",  # the route by which the request came has its timeout
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "waiting",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "replica", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.lua",
                "typed_config": {
                    "@type": f"{_EXTENSIONS}.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": (jobs_dir() / "waiting.lua").read_text()},
                },
            },
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_EXTENSIONS}.http.router.v3.Router"}},
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": "waiting", "address": _address("127.0.0.1", port), "filter_chains": [{"filters": filters}]}


def clusters(consul_http: str) -> list[dict[str, Any]]:
    """Envoy's clusters for it: Consul (HOST:PORT), and whichever replica a header names."""
    host, _, port = consul_http.rpartition(":")
    endpoint = {"endpoint": {"address": _address(host.strip("[]"), int(port))}}
    limits = {
        "max_connections": CONSUL_CONNECTIONS_MAX,
        "max_pending_requests": WAITING_MAX,
        "max_requests": WAITING_MAX,
    }
    return [
        {
            "name": "consul",
            "type": "STRICT_DNS",
            "connect_timeout": "2s",
            "circuit_breakers": {"thresholds": [limits]},
            "load_assignment": {"cluster_name": "consul", "endpoints": [{"lb_endpoints": [endpoint]}]},
        },
        {
            "name": "replica",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "2s",
            "original_dst_lb_config": {"use_http_header": True, "http_header_name": "x-nomadserve-replica"},
        },
    ]


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
