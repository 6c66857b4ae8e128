"""What the gateways really serve, asked of the gateways themselves."""

import time
from collections.abc import Iterator

import requests

from nomadserve import entries
from nomadserve.consul_api import EntryChanged
from nomadserve.errors import TimedOut
from nomadserve.nomad_api import direct_session
from nomadserve.operations.cluster import Cluster
from nomadserve.operations.events import Event, WeightsServed
from nomadserve.weights import Weights

# A weight change reaches an Envoy in well under a second; a new gateway name waits for its first health check.
SERVED_WITHIN_S = 30.0
# A gateway that just got the name passes its check within two intervals of it.
NAMED_WITHIN_S = 10.0
# New connections land on any of an Envoy's worker threads, each of which learns of a change by itself.
ANSWERS_IN_A_ROW = 3
POLL_S = 0.05
NOTHING = "nothing yet"


def wait_until_served(cluster: Cluster, service: str) -> Iterator[Event]:
    """Ask every healthy gateway until it answers by the weights that the splitter holds, whoever wrote them last.

    Raises:
        TimedOut: after `SERVED_WITHIN_S`; the weights are written and stay so.
    """
    started_at = time.monotonic()
    while True:
        weights = written_weights(cluster, service)
        gateways = [gateway.authority for gateway in cluster.consul.instances(service) if gateway.is_passing]
        served = {gateway: served_weights(gateway, service) for gateway in gateways}
        if served and set(served.values()) == {str(weights)}:
            break
        waited_s = time.monotonic() - started_at
        if waited_s > (SERVED_WITHIN_S if served else NAMED_WITHIN_S):
            raise not_served(service, weights, served)
        time.sleep(POLL_S)
    seconds = time.monotonic() - started_at
    yield WeightsServed(service=service, weights=str(weights), gateways=len(served), seconds=seconds)


def written_weights(cluster: Cluster, service: str) -> Weights:
    """What the splitter holds now.

    Raises:
        EntryChanged: somebody took the service away meanwhile.
    """
    entry = cluster.consul.entry("service-splitter", service)
    if entry is None:
        raise EntryChanged(
            f"service `{service}` was taken away meanwhile", hint="`nomadserve status` shows what is left"
        )
    return entries.weights_of(entry)


def served_weights(address: str, service: str) -> str:
    """The weights that a gateway answers by, from its reply header; `NOTHING` where answers differ or fail."""
    answers = {split_header(address, service) for _ in range(ANSWERS_IN_A_ROW)}
    return answers.pop() if len(answers) == 1 else NOTHING


def split_header(address: str, service: str) -> str:
    """The weights named by one reply on a new connection."""
    try:
        # Any path does: the header is the gateway's, whatever the replica answers. This one costs the replica least.
        with direct_session(f"http://{address}") as session:
            reply = session.get(
                f"http://{address}/v2/health/live",
                # A version that is asleep is not waited for: its weights are in the refusal as well.
                headers={"Host": f"{service}.service.consul", "Connection": "close", "Prefer": "wait=0"},
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
            hint="`nomadserve platform status` shows the gateway; `nomadserve platform up`, or `dev up`, starts it",
        )
    seen = ", ".join(f"{address} serves {what}" for address, what in served.items())
    return TimedOut(
        f"weights {weights} of `{service}` are written, but after {SERVED_WITHIN_S:.0f} s {seen}",
        hint=f"`nomadserve status {service}` shows whether any version has a healthy replica",
    )
