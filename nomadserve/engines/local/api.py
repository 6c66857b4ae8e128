"""The calls to Nomad and Consul that starting and ending a cluster needs; nothing here knows a token or TLS."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import requests

from nomadserve.engines.local.record import Cluster
from nomadserve.errors import NomadserveError

TIMEOUT_S = 10.0


class Unreachable(NomadserveError):
    """Nothing answers there, or it answers that it can't yet."""


def _call(method: str, url: str, *, parameters: Mapping[str, str] | None = None, body: Any = None) -> Any:
    """JSON of the reply; None for an empty one.

    Raises:
        Unreachable: no connection, no reply in time, or a server error.
        NomadserveError: the request was refused.
    """
    with requests.Session() as session:
        session.trust_env = False  # a proxy has no business between us and loopback
        try:
            reply = session.request(method, url, params=parameters, json=body, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            raise Unreachable(f"no answer from {url}: {type(error).__name__}") from error
    if reply.status_code >= 500:
        raise Unreachable(f"{url} answered {reply.status_code}: {reply.text.strip()}")
    if reply.status_code >= 400:
        raise NomadserveError(f"{url} answered {reply.status_code}: {reply.text.strip()}")
    try:
        return reply.json() if reply.content else None
    except requests.JSONDecodeError as error:
        raise Unreachable(f"{url} answered something that is not JSON: is another program on that port?") from error


def consul_leader(cluster: Cluster) -> str:
    """Address of Consul's leader, or an empty text while there is none."""
    return str(_call("GET", f"{cluster.consul_url}/v1/status/leader") or "")


def consul_answers(cluster: Cluster) -> bool:
    """Whether Consul's agent answers at all; Nomad looks for it once at its start, then only now and then."""
    return bool(_call("GET", f"{cluster.consul_url}/v1/agent/self"))


def create_config_entry(cluster: Cluster, entry: Mapping[str, Any]) -> bool:
    """Write a Consul config entry if there is none of that kind and name; says whether it was written."""
    return bool(_call("PUT", f"{cluster.consul_url}/v1/config", parameters={"cas": "0"}, body=entry))


def config_entry(cluster: Cluster, kind: str, name: str) -> dict[str, Any] | None:
    """A Consul config entry, or None."""
    found = _call("GET", f"{cluster.consul_url}/v1/config/{kind}")
    return next((entry for entry in found or [] if entry["Name"] == name), None)


def passing_ports(cluster: Cluster, service: str) -> list[int]:
    """Ports of the instances of a Consul service whose checks all pass."""
    url = f"{cluster.consul_url}/v1/health/service/{service}"
    return [instance["Service"]["Port"] for instance in _call("GET", url, parameters={"passing": "1"})]


def nodes(cluster: Cluster) -> list[dict[str, Any]]:
    """Nomad's nodes, with their attributes."""
    listed = _call("GET", f"{cluster.nomad_url}/v1/nodes")
    return [_call("GET", f"{cluster.nomad_url}/v1/node/{node['ID']}") for node in listed]


def has_signing_keys(cluster: Cluster) -> bool:
    """Whether Nomad's server can sign the identities that it gives to nodes and tasks."""
    keys = _call("GET", f"{cluster.nomad_url}/v1/operator/keyring/keys") or []
    return any(key["State"] == "active" for key in keys)


def parse_job(cluster: Cluster, hcl: str) -> dict[str, Any]:
    """A job specification as Nomad's own parser understands it."""
    job: dict[str, Any] = _call(
        "POST", f"{cluster.nomad_url}/v1/jobs/parse", body={"JobHCL": hcl, "Canonicalize": True}
    )
    return job


def register_job(cluster: Cluster, job: Mapping[str, Any], source: str) -> None:
    """Create or update a job."""
    submission = {"Source": source, "Format": "hcl2"}
    _call("POST", f"{cluster.nomad_url}/v1/jobs", body={"Job": job, "Submission": submission})


def find_job(cluster: Cluster, job_id: str) -> dict[str, Any] | None:
    """A job in the default namespace, or None."""
    return next((job for job in jobs(cluster) if job["ID"] == job_id and job["Namespace"] == "default"), None)


def jobs(cluster: Cluster) -> list[dict[str, Any]]:
    """Stubs of all jobs in all namespaces."""
    listed: list[dict[str, Any]] = _call("GET", f"{cluster.nomad_url}/v1/jobs", parameters={"namespace": "*"})
    return listed


def purge_job(cluster: Cluster, job: Mapping[str, Any]) -> None:
    """Stop a job and forget it; its allocations end as the job says, within its kill timeouts."""
    parameters = {"purge": "true", "namespace": job["Namespace"]}
    _call("DELETE", f"{cluster.nomad_url}/v1/job/{quote(job['ID'], safe='')}", parameters=parameters)


def allocations(cluster: Cluster) -> list[dict[str, Any]]:
    """Stubs of all allocations in all namespaces."""
    listed: list[dict[str, Any]] = _call("GET", f"{cluster.nomad_url}/v1/allocations", parameters={"namespace": "*"})
    return listed
