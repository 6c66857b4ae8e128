"""The only door to Prometheus: what a query gives now, and what it gave over time.

Source: https://prometheus.io/docs/prometheus/latest/querying/api/ and the replies of Prometheus 2.42, tried: a query
that can't be read is HTTP 400 with its reason in `error`; numbers come as text, `NaN` and `+Inf` among them.
"""

from typing import Any

import requests

from nomadserve.errors import NomadserveError

TIMEOUT_S = 10.0


class PrometheusUnreachable(NomadserveError):
    """Nothing answers at the address, or it can't answer now."""


class BadQuery(NomadserveError):
    """Prometheus can't make sense of a query."""


class PrometheusApi:
    """One Prometheus."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")

    def values(self, query: str) -> list[float]:
        """What the query gives now: one number for each series, none where it gives nothing.

        Raises:
            BadQuery: it is no PromQL, or gives something other than numbers; the message is Prometheus' own.
            PrometheusUnreachable: no answer.
        """
        reply = self._ask("query", query=query)
        if reply["resultType"] == "scalar":
            return [float(reply["result"][1])]
        if reply["resultType"] != "vector":
            raise BadQuery(f"it gives a {reply['resultType']}, not a number of this moment")
        return [float(series["value"][1]) for series in reply["result"]]

    def history(self, query: str, *, start: float, end: float, step_s: float) -> list[tuple[float, float]]:
        """Times (Unix seconds) and numbers of a query that gives one series, every `step_s`; gaps are left out.

        Raises:
            BadQuery: it is no PromQL, or gives several series.
            PrometheusUnreachable: no answer.
        """
        reply = self._ask("query_range", query=query, start=str(start), end=str(end), step=str(step_s))
        if len(reply["result"]) > 1:
            raise BadQuery(f"it gives {len(reply['result'])} series, not one")
        return [(float(at), float(value)) for series in reply["result"] for at, value in series["values"]]

    def _ask(self, path: str, **form: str) -> dict[str, Any]:
        try:
            # Straight to the address: a proxy of this machine knows nothing of the cluster.
            with requests.Session() as session:
                session.trust_env = False
                reply = session.post(f"{self.address}/api/v1/{path}", data=form, timeout=TIMEOUT_S)
            content = reply.json()
        except requests.RequestException as error:
            raise PrometheusUnreachable(f"no Prometheus answers at {self.address}: {type(error).__name__}") from error
        if reply.status_code in (400, 422):
            raise BadQuery(str(content.get("error", content)))
        if not reply.ok:
            raise PrometheusUnreachable(f"Prometheus at {self.address} answered {reply.status_code}: {content}")
        data: dict[str, Any] = content["data"]
        return data
