"""The only door to Consul: config entries by compare-and-set, and who is healthy.

Sources: https://developer.hashicorp.com/consul/api-docs/config and Consul 1.21's own replies, tried: a lost
compare-and-set is HTTP 200 with `false`; every refusal of an entry is HTTP 500 with plain text.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import consul
import requests
from consul.exceptions import ACLPermissionDenied, ConsulException

from nomadserve import rights
from nomadserve.errors import NomadserveError, WrongInput

Entry = dict[str, Any]
"""A config entry as Consul's JSON has it; `Kind` and `Name` always, `ModifyIndex` when it was read."""


# A shared entry (the gateway's router) is written by every service: a lost race is read again and repeated.
RACES_MAX = 10


class ConsulUnreachable(NomadserveError):
    """Nothing answers at the address."""


class ConsulRefused(NomadserveError):
    """Consul answered, and said no."""


class EntryChanged(NomadserveError):
    """Somebody wrote the entry between our reading and our writing it."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One registered instance of a service."""

    address: str
    port: int
    is_passing: bool
    meta: Mapping[str, str] = field(default_factory=dict)

    @property
    def authority(self) -> str:
        """Address and port as a URL has them; an IPv6 address in brackets."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class ConsulApi:
    """One Consul datacenter, by way of one agent."""

    def __init__(
        self, address: str, *, token: str | None = None, verify: bool | str = True, cert: tuple[str, str] | None = None
    ) -> None:
        url = urlsplit(address if "//" in address else f"http://{address}")
        try:
            port = url.port or (443 if url.scheme == "https" else 80)
        except ValueError:
            port = 0
        if not url.hostname or not port:
            raise WrongInput(f"`{address}` is no address of Consul", hint="give it as http://HOST:PORT")
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        self.address = f"{url.scheme}://{host}:{port}"
        self._client = consul.Consul(
            host=host, port=port, scheme=url.scheme, token=token, verify=verify, cert=cert, connections_timeout=10
        )
        # No proxy on the way to this machine; `requests` would take one where HTTP_PROXY is set.
        self._client.http.session.trust_env = url.hostname not in {"127.0.0.1", "::1", "localhost"}
        self._client.http.session.hooks["response"].append(self._look_for_filter)
        self._is_filtered = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "ConsulApi":
        """The agent that the `CONSUL_*` variables name.

        Read are HTTP_ADDR, HTTP_TOKEN, HTTP_SSL, HTTP_SSL_VERIFY, CACERT, CLIENT_CERT and CLIENT_KEY; an empty one
        counts as not set, so that no slip of a shell script turns TLS verification off.
        """
        address = environ.get("CONSUL_HTTP_ADDR") or "127.0.0.1:8500"
        if environ.get("CONSUL_HTTP_SSL", "").lower() in {"1", "true"} and "//" not in address:
            address = f"https://{address}"
        skip_verify = environ.get("CONSUL_HTTP_SSL_VERIFY", "").lower() in {"0", "false"}
        cert, key = environ.get("CONSUL_CLIENT_CERT"), environ.get("CONSUL_CLIENT_KEY")
        return cls(
            address,
            token=environ.get("CONSUL_HTTP_TOKEN") or None,
            verify=False if skip_verify else environ.get("CONSUL_CACERT") or True,
            cert=(cert, key) if cert and key else None,
        )

    def close(self) -> None:
        """Give the connections back."""
        self._client.http.session.close()

    def entry(self, kind: str, name: str) -> Entry | None:
        """The config entry, or None."""
        with self._translated(f"read {kind} `{name}`"):
            return self._client.config.get(kind, name) or None

    def entries(self, kind: str) -> list[Entry]:
        """All config entries of a kind."""
        with self._translated(f"list {kind}"):
            return list(self._client.config.list(kind) or [])

    def put(self, entry: Entry, *, index: int) -> None:
        """Write `entry` if its index is still `index` (0: it must be new).

        Raises:
            EntryChanged: somebody else wrote it meanwhile; theirs stands.
            ConsulRefused: the entry breaks one of Consul's rules.
        """
        kind, name = entry["Kind"], entry["Name"]
        with self._translated(f"write {kind} `{name}`"):
            is_written = self._client.config.set(kind, name, entry, cas=index)
        if not is_written:
            raise changed_meanwhile(kind, name)

    def delete(self, kind: str, name: str, *, index: int) -> None:
        """Delete the entry if its index is still `index`. Raises as `put`."""
        with self._translated(f"delete {kind} `{name}`"):
            is_deleted = self._client.config.delete(kind, name, cas=index)
        if not is_deleted:
            raise changed_meanwhile(kind, name)

    def change(self, kind: str, name: str, change: Callable[[Entry | None], Entry]) -> None:
        """Read, `change`, write an entry that many write; repeated when somebody else was faster."""
        for _ in range(RACES_MAX):
            before = self.entry(kind, name)
            after = change(before)
            try:
                self.put(after, index=before["ModifyIndex"] if before else 0)
            except EntryChanged:
                continue
            return
        raise changed_meanwhile(kind, name)

    def instances(self, service: str) -> list[Instance]:
        """Every registered instance of a service; `is_passing` where all its checks pass, as the gateway sees it."""
        self._is_filtered = False
        with self._translated(f"read the health of `{service}`"):
            _, nodes = self._client.health.service(service)
        # Consul leaves out what a token may not see, with a word in the reply's head, rather than to refuse.
        if self._is_filtered and not nodes:
            lacking = f'service "{service}" {{ policy = "read" }}` and `node_prefix "" {{ policy = "read" }}'
            raise not_permitted(f"read the health of `{service}`", lacking)
        return [
            Instance(
                address=node["Service"]["Address"] or node["Node"]["Address"],
                port=node["Service"]["Port"],
                meta=node["Service"].get("Meta") or {},
                is_passing=all(check["Status"] == "passing" for check in node["Checks"]),
            )
            for node in nodes
        ]

    def _look_for_filter(self, reply: requests.Response, **_: Any) -> None:
        self._is_filtered = reply.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true"

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Turn the library's exceptions into ours."""
        try:
            yield
        except requests.RequestException as error:
            raise ConsulUnreachable(
                f"no Consul answers at {self.address}",
                hint="start a local cluster with `nomadserve dev up` and take its addresses by "
                '`eval "$(nomadserve dev env)"`, or set CONSUL_HTTP_ADDR',
            ) from error
        except ACLPermissionDenied as error:
            lacking = rights.consul_lacks(str(error))
            raise not_permitted(doing if lacking else f"{doing}: {error}", lacking) from error
        except ConsulException as error:
            raise ConsulRefused(f"Consul refused to {doing}: {error}") from error


def not_permitted(doing: str, lacking: str) -> WrongInput:
    """A refusal for want of rights, with the rule that would give them, where it is known."""
    return WrongInput(f"Consul does not permit to {doing}", hint=rights.hint("CONSUL_HTTP_TOKEN", lacking))


def changed_meanwhile(kind: str, name: str) -> EntryChanged:
    """A lost compare-and-set, said as one."""
    return EntryChanged(
        f"{kind} `{name}` was changed by somebody else meanwhile; theirs stands",
        hint="look at `nomadserve status`, then repeat the command if it is still what you want",
    )
