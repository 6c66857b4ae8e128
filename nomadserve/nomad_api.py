"""The only door to Nomad: parse, plan, register, watch.

python-nomad does the ordinary calls; blocking queries, logs and `Canonicalize`d parsing with its error text, which it
lacks, go through the same HTTP session here. Every failure leaves as a `NomadserveError`.

Sources: https://developer.hashicorp.com/nomad/api-docs and Nomad 1.11's own replies, tried.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import nomad
import requests
from nomad.api.exceptions import BaseNomadException, URLNotFoundNomadException

from nomadserve import rights
from nomadserve.errors import NomadserveError, WrongInput

Job = dict[str, Any]
"""A Nomad job as Nomad's JSON has it."""

DEFAULT_NAMESPACE = "default"

# Nomad answers at once or blocks; ten seconds cover a slow raft write on a busy machine.
TIMEOUT_S = 10.0

# How long `register` waits for replicas that are about to start. Those that take longer are fetching something.
STARTING_WITHIN_S = 10.0
POLL_S = 0.2


class NomadUnreachable(NomadserveError):
    """Nothing answers at the address."""


class NomadRefused(NomadserveError):
    """Nomad answered, and said no."""


class NomadGone(NomadRefused):
    """What was asked for is not there (any more)."""


class JobChanged(NomadserveError):
    """Somebody registered the job between our reading and our writing it."""


class NomadApi:
    """One namespace of one Nomad cluster. Not for use by several threads at once.

    Attributes:
        address: base URL of the API.
        namespace: where jobs are read and registered.
        region: the region meant; None for the one of the agent at `address`.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        region: str | None = None,
        verify: bool | str = True,
        cert: tuple[str, str] | None = None,
        session: requests.Session | None = None,
    ) -> None:
        self.address = address.rstrip("/")
        self.namespace = namespace
        self.region = region
        self._session = session or direct_session(self.address)
        self._access: dict[str, Any] = {"token": token, "verify": verify, "cert": cert}
        self._client = nomad.Nomad(
            address=self.address,
            token=token,
            namespace=namespace,
            region=region,
            timeout=TIMEOUT_S,
            verify=verify,
            cert=cert or (),
            session=self._session,
        )
        self._params = {"namespace": namespace} | ({"region": region} if region else {})
        self._request_options: dict[str, Any] = {
            "headers": {"X-Nomad-Token": token} if token else {},
            "verify": verify,
            "cert": cert,
        }

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "NomadApi":
        """The cluster that the `NOMAD_*` variables name.

        Read are ADDR, TOKEN, NAMESPACE, REGION, CACERT, CLIENT_CERT, CLIENT_KEY and SKIP_VERIFY; an empty one counts
        as not set, so that no slip of a shell script turns TLS verification off.
        """
        cert, key = environ.get("NOMAD_CLIENT_CERT"), environ.get("NOMAD_CLIENT_KEY")
        skip_verify = environ.get("NOMAD_SKIP_VERIFY", "").lower() in {"1", "true"}
        return cls(
            environ.get("NOMAD_ADDR") or "http://127.0.0.1:4646",
            token=environ.get("NOMAD_TOKEN") or None,
            namespace=environ.get("NOMAD_NAMESPACE") or DEFAULT_NAMESPACE,
            region=environ.get("NOMAD_REGION") or None,
            verify=False if skip_verify else environ.get("NOMAD_CACERT") or True,
            cert=(cert, key) if cert and key else None,
        )

    def at(self, *, namespace: str | None = None, region: str | None = None) -> "NomadApi":
        """The same cluster by the same connections, in another namespace or region; None keeps the one of this."""
        return NomadApi(
            self.address,
            namespace=namespace or self.namespace,
            region=region or self.region,
            session=self._session,
            **self._access,
        )

    def close(self) -> None:
        """Give the connections back."""
        self._session.close()

    def parse(self, hcl: str) -> Job:
        """Job HCL as the job that Nomad would register, with Nomad's defaults filled in.

        Raises:
            NomadRefused: Nomad's parser found the HCL wrong; its text names line and column.
        """
        with self._translated("parse the job"):
            job: Job = self._client.jobs.parse(hcl, canonicalize=True)
            return job

    def job(self, job_id: str) -> Job | None:
        """The job as registered now, or None."""
        with self._translated(f"read job `{job_id}`"):
            try:
                job: Job = self._client.job.get_job(job_id)
            except URLNotFoundNomadException:
                return None
            return job

    def has_stable_revision(self, job_id: str, *, before: int) -> bool:
        """Whether the job was healthy in a revision older than `before`."""
        return self.stable_revision(job_id, before=before) is not None

    def stable_revision(self, job_id: str, *, before: int) -> Job | None:
        """The newest revision older than `before` in which the job was healthy: where Nomad goes back to; or None."""
        versions: list[Job] = self._get(f"/v1/job/{job_id}/versions")[0]["Versions"]  # the newest first
        return next((found for found in versions if found["Stable"] and found["Version"] < before), None)

    def jobs(self) -> list[Job]:
        """A stub of every job that we may see, in all namespaces and regions; with `Meta`, `Namespace`, `Region`."""
        regions: list[str] = self._get("/v1/regions")[0]
        return [
            stub | {"Region": region}
            for region in regions
            for stub in self._get("/v1/jobs", params={"meta": "true", "namespace": "*", "region": region})[0]
        ]

    def plan(self, job: Job) -> dict[str, Any]:
        """What registering `job` would do: `Diff`, `Annotations`, `FailedTGAllocs`, `JobModifyIndex`, `Warnings`.

        Raises:
            NomadRefused: the job breaks one of Nomad's rules; its text says which.
        """
        with self._translated(f"plan job `{job['ID']}`"):
            plan: dict[str, Any] = self._client.job.plan_job(job["ID"], {"Job": job}, diff=True)
            return plan

    def register(self, job: Job, *, source: str, modify_index: int, preserve_counts: bool) -> str:
        """Register `job` if its index is still `modify_index` (0: it must be new); answer the evaluation's id.

        Replicas that are just starting are waited for, `STARTING_WITHIN_S` at most.

        source: the HCL that `job` was parsed from, kept beside it for people (`nomad job inspect -hcl`).
        preserve_counts: leave the live group counts as they are, whatever `job` says.

        Raises:
            JobChanged: somebody else registered the job meanwhile.
        """
        body = {
            "Job": job,
            "Submission": {"Source": source, "Format": "hcl2"},
            "EnforceIndex": True,
            "JobModifyIndex": modify_index,
            "PreserveCounts": preserve_counts,
        }
        if modify_index:
            self._wait_for_starting(job["ID"])
        try:
            with self._translated(f"register job `{job['ID']}`"):
                reply: dict[str, str] = self._client.job.register_job(job["ID"], body)
                return reply["EvalID"]
        except NomadRefused as refused:
            # Nomad answers a conflict with a 500 like any other failure; whether it was one is read from the job.
            current = self.job(job["ID"])
            if (current["JobModifyIndex"] if current else 0) != modify_index:
                raise JobChanged(
                    f"job `{job['ID']}` was changed by somebody else meanwhile",
                    hint="nothing was registered; look at `nomadserve plan` again, then repeat the command",
                ) from refused
            raise

    def _wait_for_starting(self, job_id: str) -> None:
        """Return once no replica of a job is about to start, or in vain after `STARTING_WITHIN_S`.

        A client tells the servers within a second that a task runs. A new revision that reaches it before carries the
        older state, in which the client's health watcher then believes until the task's next event
        (`watchTaskEvents` in client/allochealth/tracker.go of Nomad 1.11): the deployment stays open until
        `healthy_deadline`, fails, and keeps the Autoscaler away meanwhile.
        """
        deadline = time.monotonic() + STARTING_WITHIN_S
        while any(map(is_starting, self.allocations(job_id))) and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def deregister(self, job_id: str) -> None:
        """Stop the job and forget it."""
        with self._translated(f"stop job `{job_id}`"):
            self._client.job.deregister_job(job_id, purge=True)

    def evaluation(self, evaluation_id: str, *, index: int = 0, wait_s: float = 2.0) -> tuple[dict[str, Any], int]:
        """An evaluation and its index; waits for a newer one than `index`, `wait_s` at most."""
        return self._get(f"/v1/evaluation/{evaluation_id}", index=index, wait_s=wait_s)

    def latest_deployment(self, job_id: str) -> dict[str, Any] | None:
        """The job's newest deployment, or None where it never had one."""
        deployment: dict[str, Any] | None = self._get(f"/v1/job/{job_id}/deployment")[0]
        return deployment

    def deployment(self, deployment_id: str, *, index: int = 0, wait_s: float = 2.0) -> tuple[dict[str, Any], int]:
        """A deployment and its index; waits for a newer one than `index`, `wait_s` at most."""
        return self._get(f"/v1/deployment/{deployment_id}", index=index, wait_s=wait_s)

    def fail_deployment(self, deployment_id: str) -> None:
        """Give a deployment up; Nomad reverts the job where its `update` block says so."""
        with self._translated("fail the deployment"):
            self._client.deployment.fail_deployment(deployment_id)

    def allocations(self, job_id: str) -> list[dict[str, Any]]:
        """Stubs of all the job's allocations, ended ones too, oldest first."""
        stubs: list[dict[str, Any]] = self._get(f"/v1/job/{job_id}/allocations")[0]
        return sorted(stubs, key=lambda stub: int(stub["CreateIndex"]))

    def deployment_allocations(self, deployment_id: str) -> list[dict[str, Any]]:
        """Stubs of the allocations that a deployment placed, oldest first."""
        stubs: list[dict[str, Any]] = self._get(f"/v1/deployment/allocations/{deployment_id}")[0]
        return sorted(stubs, key=lambda stub: int(stub["CreateIndex"]))

    def is_blocked(self, job_id: str) -> bool:
        """Whether the scheduler waits for room to place what the job still lacks."""
        return self.unplaced(job_id) is not None

    def unplaced(self, job_id: str) -> dict[str, dict[str, Any]] | None:
        """What the scheduler counted for each group (`FailedTGAllocs`) that waits for room; None where none does."""
        evaluations: list[dict[str, Any]] = self._get(f"/v1/job/{job_id}/evaluations")[0]
        blocked = [evaluation for evaluation in evaluations if evaluation["Status"] == "blocked"]
        return (blocked[0].get("FailedTGAllocs") or {}) if blocked else None

    def nodes(self) -> list[dict[str, Any]]:
        """Every client node, whole."""
        return [self._get(f"/v1/node/{stub['ID']}")[0] for stub in self._get("/v1/nodes")[0]]

    def node_allocations(self, node_id: str) -> list[dict[str, Any]]:
        """Every allocation on a node, whole, ended ones too."""
        allocations: list[dict[str, Any]] = self._get(f"/v1/node/{node_id}/allocations")[0]
        return allocations

    def task_log(self, allocation_id: str, task: str, *, stream: str, bytes_max: int = 4000) -> str:
        """The end of a task's log. stream: `stdout` or `stderr`. Empty where there is none (yet)."""
        params = {"task": task, "type": stream, "origin": "end", "offset": str(bytes_max), "plain": "true"}
        response = self._send(f"/v1/client/fs/logs/{allocation_id}", params)
        # Nomad says `text/plain` without a charset, which requests takes for Latin-1.
        return response.content.decode("utf-8", "replace") if response.ok else ""

    def task_log_since(self, allocation_id: str, task: str, *, stream: str, offset: int) -> bytes:
        """A task's log from byte `offset` on; empty where there is nothing more (yet)."""
        params = {"task": task, "type": stream, "origin": "start", "offset": str(offset), "plain": "true"}
        response = self._send(f"/v1/client/fs/logs/{allocation_id}", params)
        return response.content if response.ok else b""

    def _get(
        self, path: str, *, params: Mapping[str, str] | None = None, index: int = 0, wait_s: float = 0.0
    ) -> tuple[Any, int]:
        """The decoded reply and its `X-Nomad-Index`. A blocking query where `index` is given."""
        query = dict(params or {})
        if index:
            query |= {"index": str(index), "wait": f"{int(wait_s * 1000)}ms"}
        response = self._send(path, query, wait_s=wait_s)
        if not response.ok:
            raise refusal(f"read {path}", response)
        try:
            found = response.json()
        except requests.JSONDecodeError as error:
            raise NomadRefused(f"what answers at {self.address} is not Nomad", hint="check NOMAD_ADDR") from error
        return found, int(response.headers.get("X-Nomad-Index", "0"))

    def _send(self, path: str, params: Mapping[str, str], *, wait_s: float = 0.0) -> requests.Response:
        try:
            return self._session.get(
                self.address + path,
                params=self._params | dict(params),
                timeout=TIMEOUT_S + wait_s,
                **self._request_options,
            )
        except requests.RequestException as error:
            raise self._unreachable() from error

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Turn python-nomad's exceptions into ours."""
        try:
            yield
        except BaseNomadException as error:
            reply = error.nomad_resp
            if isinstance(reply, requests.Response):
                raise refusal(doing, reply) from error
            raise self._unreachable() from error

    def _unreachable(self) -> NomadUnreachable:
        return NomadUnreachable(
            f"no Nomad answers at {self.address}",
            hint="start a local cluster with `nomadserve dev up` and take its addresses by "
            '`eval "$(nomadserve dev env)"`, or set NOMAD_ADDR',
        )


def is_living(allocation: Mapping[str, Any]) -> bool:
    """Whether an allocation holds its ports and may answer: one that is stopped does so until its drain is over."""
    return allocation["ClientStatus"] in {"pending", "running"}


def is_starting(allocation: Mapping[str, Any]) -> bool:
    """Whether none of an allocation's tasks has been started yet, as far as the servers know."""
    if allocation["DesiredStatus"] != "run" or allocation["ClientStatus"] != "pending":
        return False
    return not any(task["StartedAt"] or task["Restarts"] for task in (allocation["TaskStates"] or {}).values())


def direct_session(address: str) -> requests.Session:
    """A session that takes no proxy on the way to this machine; `requests` would, where HTTP_PROXY is set."""
    session = requests.Session()
    session.trust_env = urlsplit(address).hostname not in {"127.0.0.1", "::1", "localhost"}
    return session


def refusal(doing: str, response: requests.Response) -> NomadserveError:
    """Nomad's own text as an error of ours."""
    if response.status_code == 403:
        request = response.request
        lacking = rights.nomad_lacks(request.method or "", request.url or "")
        text = response.text.strip()
        reason = "" if text == "Permission denied" else f": {text}"
        return WrongInput(f"Nomad does not permit to {doing}{reason}", hint=rights.hint("NOMAD_TOKEN", lacking))
    if response.status_code == 404:
        return NomadGone(
            f"Nomad can't {doing}: {response.text.strip()}", hint=f"is it Nomad that answers at {response.url}?"
        )
    return NomadRefused(f"Nomad refused to {doing}: {response.text.strip()}")
