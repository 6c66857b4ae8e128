"""What a service is in Consul: the config entries of its traffic, computed, never sent.

For a service `digits` with versions `v1` and `v2` (see `docs/architecture.md` for how a request takes them):

    service-defaults  digits, digits-v1, digits-v2   Protocol = http
    service-splitter  digits                         the weights: the only record of traffic and of the versions
    service-resolver  digits-v1, digits-v2           the others take over where one has no healthy replica
    service-router    nomadserve                     shared by all services: Host `digits.…` leads to the splitter

Facts about Consul 1.21 (tried): defaults come before what needs their protocol; a splitter's request is cut at 15 s
unless a router's destination says otherwise; `Meta` takes 64 keys, values of 512 characters.
"""

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from nomadserve.errors import NomadserveError
from nomadserve.weights import Weights

Entry = dict[str, Any]
"""A config entry as Consul's JSON has it."""

ROUTER = "nomadserve"
"""The virtual service that every gateway has as its one upstream."""

WAITING_ROOM = "nomadserve-waiting"
"""The last resort of versions that may sleep. Every gateway registers its own at 127.0.0.1, and so finds its own."""

SPLIT_HEADER = "x-nomadserve-split"
"""Reply header, set by the gateway: the weights it served the request by."""

VERSION_HEADER = "x-nomadserve-version"
"""Request header that pins a version, past the weights; reply header that names the version that answered."""


WAKES_HEADER = "x-nomadserve-wakes"
"""Request header, set by the gateway for versions that may sleep: what the waiting room has to know (`Waking`)."""

WAKES = "wakes"
"""Key of a resolver's `Meta`: the version's `Waking` as JSON."""

# Consul's own limits on `Meta` are 64 keys and 512 characters (tried on 1.21).
CHANGES_MAX = 50
CHANGE_KEY = re.compile(r"change-\d{6}")
META_VALUE_LENGTH_MAX = 512


OWNER = "nomadserve"
"""Key of `Meta` that names the service an entry was made for: what lacks it was made by somebody else, and stays."""


class Waking(msgspec.Struct, frozen=True, kw_only=True):
    """How a version that sleeps comes back; all in seconds.

    Attributes:
        startup_s: from its start until it is ready, as last measured.
        notice_s: until its start is decided on.
        hold_s: how long the gateway keeps a request meanwhile, at most.
    """

    startup_s: float
    notice_s: float
    hold_s: float

    @property
    def expected_s(self) -> int:
        """From the request to its answer."""
        return math.ceil(self.startup_s + self.notice_s)


class UnreadableSplitter(NomadserveError):
    """The splitter holds what nomadserve never writes."""


def service_defaults(name: str) -> Entry:
    """Consul routes and splits what it knows to be HTTP."""
    return {"Kind": "service-defaults", "Name": name, "Protocol": "http"}


def resolver(service: str, version: str, others: Sequence[str], waking: Waking | None = None) -> Entry:
    """Where requests for a version go: to it, or to the first of `others` with a healthy replica.

    waking: of a version that may sleep; a request that finds nobody goes to the waiting room.
    """
    entry: Entry = {"Kind": "service-resolver", "Name": f"{service}-{version}", "Meta": {OWNER: service}}
    targets = [f"{service}-{other}" for other in others]
    if waking:
        entry["Meta"][WAKES] = msgspec.json.encode(waking).decode()
        targets.append(WAITING_ROOM)
    if targets:
        entry["Failover"] = {"*": {"Targets": [{"Service": target} for target in targets]}}
    return entry


def waking_of(resolver: Entry | None) -> Waking | None:
    """How the version of a resolver comes back; None where it never sleeps."""
    text = ((resolver or {}).get("Meta") or {}).get(WAKES)
    return msgspec.json.decode(text, type=Waking) if text else None


def wakes_header(service: str, version: str, waking: Waking | None) -> dict[str, Any]:
    """What a split or a route sets for the waiting room: a part of an entry, empty where the version never sleeps."""
    if waking is None:
        return {}
    return {"RequestHeaders": {"Set": {WAKES_HEADER: f"{service}-{version} {waking.expected_s} {waking.hold_s:.0f}"}}}


def splitter(
    service: str, weights: Weights, meta: Mapping[str, str], wakings: Mapping[str, Waking] = MappingProxyType({})
) -> Entry:
    """The weights, and in `meta` how they came to be. wakings: of the versions that may sleep."""
    label = {"Set": {SPLIT_HEADER: str(weights)}}
    return {
        "Kind": "service-splitter",
        "Name": service,
        "Splits": [
            {"Weight": weight, "Service": f"{service}-{version}", "ResponseHeaders": label}
            | wakes_header(service, version, wakings.get(version))
            for version, weight in weights.by_version.items()
        ],
        "Meta": dict(meta) | {OWNER: service},
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
                hint="somebody else wrote it: choose another service name",
            )
        by_version[target.removeprefix(f"{service}-")] = split.get("Weight", 0)
    return Weights(by_version)


def with_change(meta: Mapping[str, str] | None, change: str) -> dict[str, str]:
    """A splitter's `Meta` with one more line of history; the oldest are forgotten. Keys sort in order of time."""
    lines = {key: text for key, text in (meta or {}).items() if CHANGE_KEY.fullmatch(key)}
    kept = sorted(lines)[-(CHANGES_MAX - 1) :]
    number = int(kept[-1].removeprefix("change-")) + 1 if kept else 1
    others = {key: text for key, text in (meta or {}).items() if key not in lines}
    new = {f"change-{number:06}": change[:META_VALUE_LENGTH_MAX]}
    return others | {key: lines[key] for key in kept} | new


def changes(entry: Entry | None) -> list[str]:
    """The lines of history that a splitter holds, oldest first."""
    meta = (entry or {}).get("Meta") or {}
    return [meta[key] for key in sorted(meta) if CHANGE_KEY.fullmatch(key)]


def owner(entry: Entry) -> str:
    """The service that an entry was made for; empty where nomadserve did not make it."""
    return str((entry.get("Meta") or {}).get(OWNER, ""))


def by_weight(weights: Weights, *, but: str) -> list[str]:
    """The other versions, the one with most traffic first: the order in which they take over for `but`."""
    others = [version for version in weights.by_version if version != but]
    return sorted(others, key=lambda version: -weights.by_version[version])


def traffic_entries(
    service: str, weights: Weights, meta: Mapping[str, str], wakings: Mapping[str, Waking] = MappingProxyType({})
) -> list[Entry]:
    """Every entry that is the service's own, in the order in which Consul takes them.

    wakings: of the versions that may sleep.

    The splitter comes before the failovers: where its compare-and-set is lost, those still fit the weights that won.
    """
    versions = list(weights.by_version)
    names = [*(f"{service}-{version}" for version in versions), service]
    return [
        *(service_defaults(name) | {"Meta": {OWNER: service}} for name in names),
        splitter(service, weights, meta, wakings),
        *(resolver(service, version, by_weight(weights, but=version), wakings.get(version)) for version in versions),
    ]


def routes(
    service: str, timeouts_s: Mapping[str, float], wakings: Mapping[str, Waking] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """The service's routes at the gateway; the first that matches is taken.

    timeouts_s: per version the longest that a request may take; a request to no version in particular gets the longest.
    wakings: of the versions that may sleep.
    """
    host = {"Name": ":authority", "Prefix": f"{service}."}
    longest_s = max(timeouts_s.values())

    def route(target: str, *conditions: dict[str, Any], timeout_s: float = longest_s, path: str = "") -> dict[str, Any]:
        match: dict[str, Any] = {"Header": [host, *conditions]}
        destination: dict[str, Any] = {
            "Service": target,
            "RequestTimeout": go_duration(timeout_s),
            # Only what never reached a replica is sent again: what crashes one replica must not meet the next.
            "NumRetries": 2,
            "RetryOn": ["connect-failure", "refused-stream"],
        }
        if path:
            match["PathExact"] = path
            destination["PrefixRewrite"] = "/not-routed"
        return {"Match": {"HTTP": match}, "Destination": destination}

    pins = [
        route(f"{service}-{version}", {"Name": VERSION_HEADER, "Exact": version}, timeout_s=timeout_s)
        for version, timeout_s in timeouts_s.items()
    ]
    for version, pin in zip(timeouts_s, pins, strict=True):
        pin["Destination"] |= wakes_header(service, version, wakings.get(version))
    # A route can't refuse. Metrics are for the machines that run the service: outside, the path leads to a 404.
    return [route(service, path="/metrics"), *pins, route(service)]


def timeouts_of(router: Entry | None, service: str) -> dict[str, float]:
    """Per version of the service its request timeout in seconds, from the routes that pin it."""
    found = {}
    for own in own_routes(router, service):
        version = own["Destination"]["Service"].removeprefix(f"{service}-")
        if any(header["Name"] == VERSION_HEADER for header in own["Match"]["HTTP"]["Header"]):
            found[version] = seconds_of(own["Destination"]["RequestTimeout"])
    return found


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


def seconds_of(duration: str) -> float:
    """A duration as Go writes it in seconds: `5m0s` → 300.0."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|h|m|s)", duration))


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
