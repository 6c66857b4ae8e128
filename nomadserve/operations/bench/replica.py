"""One replica over HTTP, beside the load: what it serves, and what its own metrics say."""

from dataclasses import dataclass
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from nomadserve.errors import NomadserveError, WrongInput

TIMEOUT_S = 10.0


class NoReplica(NomadserveError):
    """Nothing that can be measured answers there."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Running totals of one replica: batches, their rows, and seconds of processor time."""

    batches: float
    rows: float
    cpu_seconds: float


class Replica:
    """Where requests go: a replica, or a gateway (whose metrics are nobody's here)."""

    def __init__(self, address: str, port: int, *, host: str = "", headers: dict[str, str] | None = None) -> None:
        self.address, self.port = address, port
        self.host = host or f"{address}:{port}"
        self.headers = headers or {}
        self._session = requests.Session()
        self._session.headers.update({"Host": self.host, **self.headers})

    def post(self, path: str, body: str) -> float:
        """Send one request and return the seconds it took.

        Raises:
            WrongInput: it was answered with an error; the payload is wrong.
            NoReplica: no answer.
        """
        reply = self._send("POST", path, data=body.encode(), headers={"Content-Type": "application/json"})
        if reply.status_code == requests.codes.unavailable:
            raise NoReplica(
                f"{self.host} refuses a single request: {reply.text[:300]}", hint="is it busy, or draining?"
            )
        if reply.status_code != requests.codes.ok:
            raise WrongInput(
                f"{self.host} answers {reply.status_code} to the first request: {reply.text[:300]}",
                hint="give bodies that the model takes: `--data @requests.json`",
            )
        return reply.elapsed.total_seconds()

    def metadata(self, model: str) -> dict[str, Any]:
        """`GET /v2/models/MODEL`: inputs and outputs."""
        reply = self._send("GET", f"/v2/models/{model}")
        if reply.status_code != requests.codes.ok:
            raise WrongInput(
                f"{self.host} has no metadata of a model `{model}`: {reply.status_code} {reply.text[:200]}",
                hint="name the model with `--model`",
            )
        found: dict[str, Any] = reply.json()
        return found

    def models(self) -> list[str]:
        """The models that its metrics name; empty where there are no metrics."""
        text = self._metrics()
        if text is None:
            return []
        families = text_string_to_metric_families(text)
        return sorted({s.labels["model"] for f in families for s in f.samples if s.name == "nomadserve_in_flight"})

    def counters(self, model: str) -> Counters | None:
        """Its running totals; None where it shows no metrics (a gateway does not)."""
        text = self._metrics()
        if text is None:
            return None
        totals = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("model", model) == model and "le" not in sample.labels
        }
        batches = totals.get("nomadserve_batch_rows_count")
        if batches is None:
            return None
        return Counters(batches, totals["nomadserve_batch_rows_sum"], totals.get("process_cpu_seconds_total", 0.0))

    def close(self) -> None:
        """Give the connection back."""
        self._session.close()

    def _metrics(self) -> str | None:
        reply = self._send("GET", "/metrics")
        return reply.text if reply.status_code == requests.codes.ok else None

    def _send(self, method: str, path: str, **content: Any) -> requests.Response:
        try:
            return self._session.request(
                method, f"http://{self.address}:{self.port}{path}", timeout=TIMEOUT_S, **content
            )
        except requests.RequestException as error:
            raise NoReplica(
                f"nothing answers at http://{self.address}:{self.port}{path}: {type(error).__name__}",
                hint="give the address of a running `nomadserve serve`, a service, or a model file",
            ) from error
