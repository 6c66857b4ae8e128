"""What a service is in Consul: the config entries of its traffic, computed, never sent.

For a service `digits` with versions `v1` and `v2` (see `docs/architecture.md` for how a request takes them):

    service-defaults  digits, digits-v1, digits-v2   Protocol = http
    service-resolver  digits-v1, digits-v2           the others take over where one has no healthy replica
    service-splitter  digits                         the weights: the only record of traffic and of the versions
    service-router    nomadserve                     shared by all services: Host `digits.…` leads to the splitter

Facts about Consul 1.21 (tried): defaults come before what needs their protocol; a splitter's request is cut at 15 s
unless a router's destination says otherwise; `Meta` takes 64 keys, values of 512 characters.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nomadserve.errors import NomadserveError
from nomadserve.weights import Weights

Entry = dict[str, Any]
"""A config entry as Consul's JSON has it."""

ROUTER = "nomadserve"
"""The virtual service that every gateway has as its one upstream."""

SPLIT_HEADER = "x-nomadserve-split"
"""Reply header, set by the gateway: the weights it served the request by."""

VERSION_HEADER = "x-nomadserve-version"
"""Request header that pins a version, past the weights; reply header that names the version that answered."""


# Consul's own limits on `Meta` are 64 keys and 512 characters (tried on 1.21).
CHANGES_MAX = 50
META_VALUE_LENGTH_MAX = 512


class UnreadableSplitter(NomadserveError):
    """The splitter holds what nomadserve never writes."""


def service_defaults(name: str) -> Entry:
    """Consul routes and splits what it knows to be HTTP."""
    return {"Kind": "service-defaults", "Name": name, "Protocol": "http"}


def resolver(service: str, version: str, others: Sequence[str]) -> Entry:
    """Where requests for a version go: to it, or to the first of `others` with a healthy replica."""
    entry: Entry = {"Kind": "service-resolver", "Name": f"{service}-{version}"}
    if others:
        entry["Failover"] = {"*": {"Targets": [{"Service": f"{service}-{other}"} for other in others]}}
    return entry


def splitter(service: str, weights: Weights, meta: Mapping[str, str]) -> Entry:
    """The weights, and in `meta` how they came to be."""
    label = {"Set": {SPLIT_HEADER: str(weights)}}
    return {
        "Kind": "service-splitter",
        "Name": service,
        "Splits": [
            {"Weight": weight, "Service": f"{service}-{version}", "ResponseHeaders": label}
            for version, weight in weights.by_version.items()
        ],
        "Meta": dict(meta),
    }


def weights_of(entry: Entry) -> Weights:
    """The weights that a service's splitter holds.

    Raises:
        UnreadableSplitter: a split leads elsewhere than to a version of the service.
    """
    service = entry["Name"]
    by_version = {}
    for split in entry["Splits"]:
        target = split.get("Service", "")
        if not target.startswith(f"{service}-"):
            raise UnreadableSplitter(
                f"service-splitter `{service}` sends traffic to `{target or service}`, which is no version of it",
                hint=f"nomadserve did not write it: delete it with `consul config delete -kind service-splitter "
                f"-name {service}`, or choose another service name",
            )
        by_version[target.removeprefix(f"{service}-")] = split.get("Weight", 0)
    return Weights(by_version)


def with_change(meta: Mapping[str, str] | None, change: str) -> dict[str, str]:
    """A splitter's `Meta` with one more line of history; the oldest are forgotten. Keys sort in order of time."""
    kept = sorted((meta or {}).items())[-(CHANGES_MAX - 1) :]
    number = int(kept[-1][0].removeprefix("change-")) + 1 if kept else 1
    return dict(kept) | {f"change-{number:06}": change[:META_VALUE_LENGTH_MAX]}


def by_weight(weights: Weights, *, but: str) -> list[str]:
    """The other versions, the one with most traffic first: the order in which they take over for `but`."""
    others = [version for version in weights.by_version if version != but]
    return sorted(others, key=lambda version: -weights.by_version[version])


def traffic_entries(service: str, weights: Weights, meta: Mapping[str, str]) -> list[Entry]:
    """Every entry that is the service's own, in the order in which Consul takes them."""
    versions = list(weights.by_version)
    return [
        *(service_defaults(f"{service}-{version}") for version in versions),
        service_defaults(service),
        *(resolver(service, version, by_weight(weights, but=version)) for version in versions),
        splitter(service, weights, meta),
    ]


def routes(service: str, versions: Sequence[str], request_timeout_s: float) -> list[dict[str, Any]]:
    """The service's routes at the gateway; the first that matches is taken."""
    host = {"Name": ":authority", "Prefix": f"{service}."}

    def route(target: str, *conditions: dict[str, Any], path: str = "", rewrite: str = "") -> dict[str, Any]:
        match: dict[str, Any] = {"Header": [host, *conditions]}
        destination: dict[str, Any] = {
            "Service": target,
            "RequestTimeout": go_duration(request_timeout_s),
            # Only what never reached a replica is sent again: what crashes one replica must not meet the next.
            "NumRetries": 2,
            "RetryOn": ["connect-failure", "refused-stream"],
        }
        if path:
            match["PathExact"] = path
            destination["PrefixRewrite"] = rewrite
        return {"Match": {"HTTP": match}, "Destination": destination}

    pins = [route(f"{service}-{version}", {"Name": VERSION_HEADER, "Exact": version}) for version in versions]
    # A route can't refuse. Metrics are for the machines that run the service: outside, the path leads to a 404.
    return [route(service, path="/metrics", rewrite="/not-routed"), *pins, route(service)]


def with_routes(router: Entry | None, service: str, own: Sequence[dict[str, Any]]) -> Entry:
    """The shared router with this service's routes replaced by `own`, all others as they are."""
    others = [route for route in (router or {}).get("Routes") or [] if routed_service(route) != service]
    return {"Kind": "service-router", "Name": ROUTER, "Routes": [*others, *own]}


def own_routes(router: Entry | None, service: str) -> list[dict[str, Any]]:
    """The routes of one service in the shared router."""
    return [route for route in (router or {}).get("Routes") or [] if routed_service(route) == service]


def routed_services(router: Entry | None) -> list[str]:
    """The services that have routes, each once, in the router's order."""
    names = (routed_service(route) for route in (router or {}).get("Routes") or [])
    return list(dict.fromkeys(name for name in names if name))


def routed_service(route: Mapping[str, Any]) -> str:
    """The service whose Host header a route matches; empty where it is none of nomadserve's."""
    http = (route.get("Match") or {}).get("HTTP") or {}
    for header in http.get("Header") or []:
        if header.get("Name") == ":authority":
            return str(header.get("Prefix", "")).removesuffix(".")
    return ""


def go_duration(seconds: float) -> str:
    """Seconds as Consul writes them back: `300` → `5m0s`, `0.5` → `500ms`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def is_same(wanted: Any, existing: Any) -> bool:
    """Whether `existing` says just what `wanted` says, but for what Consul adds (indexes, empty values)."""
    if isinstance(wanted, Mapping) and isinstance(existing, Mapping):
        extra = (existing[key] for key in existing.keys() - wanted.keys() - ADDED_BY_CONSUL)
        return all(is_same(wanted[key], existing.get(key)) for key in wanted) and not any(extra)
    if isinstance(wanted, list) and isinstance(existing, list):
        return len(wanted) == len(existing) and all(map(is_same, wanted, existing))
    return bool(wanted == existing) or (not wanted and not existing)


ADDED_BY_CONSUL = {
    "CreateIndex",
    "ModifyIndex",
    "Hash",
    "Partition",
    "Namespace",
    "TransparentProxy",
    "MeshGateway",
    "Expose",
}
