"""What the gateways really serve, asked of the gateways themselves."""

import time
from collections.abc import Iterator

import requests

from nomadserve import entries
from nomadserve.errors import TimedOut
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.events import Event, WeightsServed
from nomadserve.weights import Weights

# A weight change reaches an Envoy in well under a second; a new gateway name waits for its first health check.
SERVED_WITHIN_S = 30.0
# New connections land on any of an Envoy's worker threads, each of which learns of a change by itself.
ANSWERS_IN_A_ROW = 3
POLL_S = 0.05
NOTHING = "nothing yet"


def wait_until_served(cluster: Cluster, service: str, weights: Weights) -> Iterator[Event]:
    """Ask every healthy gateway until it answers by `weights`.

    Raises:
        TimedOut: after `SERVED_WITHIN_S`; the weights are written and stay so.
    """
    started_at = time.monotonic()
    while True:
        gateways = [gateway for gateway in cluster.consul.instances(service) if gateway.is_passing]
        addresses = [f"{gateway.address}:{gateway.port}" for gateway in gateways]
        served = {address: served_weights(address, service) for address in addresses}
        if served and set(served.values()) == {str(weights)}:
            break
        if time.monotonic() - started_at > SERVED_WITHIN_S:
            raise not_served(service, weights, served)
        time.sleep(POLL_S)
    seconds = time.monotonic() - started_at
    yield WeightsServed(service=service, weights=str(weights), gateways=len(served), seconds=seconds)


def served_weights(address: str, service: str) -> str:
    """The weights that a gateway answers by, from its reply header; `NOTHING` where answers differ or fail."""
    answers = {split_header(address, service) for _ in range(ANSWERS_IN_A_ROW)}
    return answers.pop() if len(answers) == 1 else NOTHING


def split_header(address: str, service: str) -> str:
    """The weights named by one reply on a new connection."""
    try:
        # Any path does: the header is the gateway's, whatever the replica answers. This one costs the replica least.
        reply = requests.get(
            f"http://{address}/v2/health/live",
            headers={"Host": f"{service}.service.consul", "Connection": "close"},
            timeout=2,
        )
    except requests.RequestException:
        return NOTHING
    return reply.headers.get(entries.SPLIT_HEADER, NOTHING)


def not_served(service: str, weights: Weights, served: dict[str, str]) -> TimedOut:
    """The weights are written, but not seen: what was seen instead."""
    if not served:
        return TimedOut(
            f"weights {weights} of `{service}` are written, but no gateway is healthy",
            hint="`nomadserve dev status` shows a local cluster's gateway; elsewhere see job `nomadserve-gateway`",
        )
    seen = ", ".join(f"{address} serves {what}" for address, what in served.items())
    return TimedOut(
        f"weights {weights} of `{service}` are written, but after {SERVED_WITHIN_S:.0f} s {seen}",
        hint=f"`nomadserve status {service}` shows whether any version has a healthy replica",
    )
