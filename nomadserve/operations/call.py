"""One request to a service, as any client sends it: the Consul DNS name, then plain HTTP."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver
import requests

from nomadserve import entries, rights
from nomadserve.errors import NomadserveError, WrongInput

DNS_TIMEOUT_S = 5.0


class NameNotFound(NomadserveError):
    """Consul's DNS has no healthy gateway under the name."""


class NotAnswered(NomadserveError):
    """The gateway, or what is behind it, did not answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A gateway as an SRV record names it."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply. `version` is the one that answered; `body` is its text, whatever the status."""

    endpoint: Endpoint
    status: int
    version: str
    seconds: float
    body: str


def resolve(name: str, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """Ask Consul's DNS server for the SRV record of `name`, and for the address of its target.

    Raises:
        NameNotFound: no healthy gateway has that name.
        NomadserveError: no DNS server answers at `CONSUL_DNS_ADDR`.
    """
    server = environ.get("CONSUL_DNS_ADDR", "127.0.0.1:8600")
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = dns_server(server)
    resolver.lifetime = DNS_TIMEOUT_S
    try:
        record = min(resolver.resolve(name, dns.rdatatype.SRV), key=lambda each: (each.priority, -each.weight))
        address = next(iter(resolver.resolve_name(record.target).addresses()))
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer, dns.resolver.NoNameservers, dns.name.LabelTooLong) as error:
        raise NameNotFound(
            f"`{name}` does not resolve at {server}",
            hint="`nomadserve status` lists the services, and whether a gateway is healthy; with ACLs, Consul's DNS "
            f"needs a token of its own ({rights.DOCUMENT})",
        ) from error
    except (dns.exception.Timeout, OSError) as error:
        raise NomadserveError(
            f"no DNS server answers at {server}", hint='set CONSUL_DNS_ADDR; `eval "$(nomadserve dev env)"` does it'
        ) from error
    return Endpoint(address, record.port)


def dns_server(server: str) -> tuple[list[str], int]:
    """Addresses and port of `HOST:PORT`; a name is looked up, an IPv6 address stands in brackets."""
    host, _, port = server.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    except (ValueError, OSError) as error:
        raise WrongInput(
            f"CONSUL_DNS_ADDR is `{server}`, which is no address", hint="give it as HOST:PORT, say 127.0.0.1:8600"
        ) from error
    return list(dict.fromkeys(str(each[4][0]) for each in found)), int(port)


def call(
    service: str,
    body: bytes,
    *,
    version: str | None,
    timeout_s: float,
    on_wait: Callable[[float, str], None] = lambda seconds, why: None,
) -> Answer:
    """Send one inference request to `SERVICE.service.consul`; again, while a version is starting, until `timeout_s`.

    body: JSON, as `POST /v1/inference` takes it.  version: pin it, past the weights.
    on_wait: called with the seconds before the next try, and why.

    Raises:
        NameNotFound, NotAnswered: nothing healthy has the name, or no answer came.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        reply, endpoint = post(service, body, version=version, timeout_s=max(0.1, deadline - time.monotonic()))
        wait_s = starts_in(reply)
        if wait_s is None or time.monotonic() + wait_s >= deadline:
            break
        on_wait(wait_s, f"{service} is starting")
        time.sleep(wait_s)
    answered_by = reply.headers.get(entries.VERSION_HEADER, "")
    if version and answered_by and answered_by != version:
        raise NotAnswered(
            f"`{service}` was asked for version `{version}`, and `{answered_by}` answered",
            hint=f"`nomadserve status {service}` shows whether `{version}` exists and has a healthy replica",
        )
    return Answer(
        endpoint=endpoint,
        status=reply.status_code,
        version=answered_by,
        seconds=reply.elapsed.total_seconds(),
        body=reply.text,
    )


def post(service: str, body: bytes, *, version: str | None, timeout_s: float) -> tuple[requests.Response, Endpoint]:
    """One request to whichever gateway the name stands for. Raises as `call`."""
    name = f"{service}.service.consul"
    endpoint = resolve(name)
    # The gateway keeps a request for a sleeping version only as long as we can wait for the answer.
    headers = {"Host": name, "Content-Type": "application/json", "Prefer": f"wait={max(0, int(timeout_s) - 1)}"}
    if version:
        headers[entries.VERSION_HEADER] = version
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    url = f"http://{host}:{endpoint.port}/v1/inference"
    try:
        with requests.Session() as session:
            session.trust_env = False  # a gateway that the DNS names is reached directly, never through a proxy
            return session.post(url, data=body, headers=headers, timeout=timeout_s), endpoint
    except requests.RequestException as error:
        raise NotAnswered(
            f"no answer from {name} at {endpoint.address}:{endpoint.port} within {timeout_s:g} s: {error}",
            hint=f"`nomadserve status {service}` shows its replicas",
        ) from error


def starts_in(reply: requests.Response) -> float | None:
    """Seconds after which a version that was asleep should be ready; None where that is not what the reply says."""
    if reply.status_code != 503 or "Retry-After" not in reply.headers:
        return None
    try:
        is_starting = reply.json().get("reason") == "starting"
        return float(reply.headers["Retry-After"]) if is_starting else None
    except (ValueError, AttributeError):  # somebody else's reply
        return None
