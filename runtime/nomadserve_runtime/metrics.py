"""Every series that the runtime exports, declared once. The autoscaler's queries rely on these names and labels."""

from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

OUTCOMES = ("ok", "invalid", "refused", "expired", "failed", "abandoned")
REFUSALS = ("queue_full", "draining", "deadline")

# From half a millisecond, where a small model answers, to the minute that the longest batches take.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# `_created` doubles the number of series and no query uses it.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class ModelMetrics:
    """The series of one model, its label bound once, so that counting costs no look-up.

    Attributes:
        outcome: counter per outcome of a request, by the words of `OUTCOMES`.
        refused: counter per reason of a refusal, by the words of `REFUSALS`.
        rows: rows answered ok.
        batch_rows: rows of each batch that ran.
        request_seconds: from the request's arrival to its encoded reply; those answered ok.
        queue_seconds: from admission to the start of its batch.
        engine_seconds: of each batch.
    """

    def __init__(self, series: "Series", model: str) -> None:
        self.outcome = {word: series.requests.labels(model, word) for word in OUTCOMES}
        self.refused = {word: series.refused.labels(model, word) for word in REFUSALS}
        self.rows = series.rows.labels(model)
        self.batch_rows = series.batch_rows.labels(model)
        self.request_seconds = series.request_seconds.labels(model)
        self.queue_seconds = series.queue_seconds.labels(model)
        self.engine_seconds = series.engine_seconds.labels(model)
        self._gauges = (
            series.in_flight.labels(model),
            series.queued_rows.labels(model),
            series.backlog_seconds.labels(model),
        )

    def watch(
        self,
        *,
        in_flight: Callable[[], float],
        queued_rows: Callable[[], float],
        backlog_seconds: Callable[[], float],
    ) -> None:
        """Read these gauges when somebody scrapes; a request costs them nothing."""
        for gauge, read in zip(self._gauges, (in_flight, queued_rows, backlog_seconds), strict=True):
            gauge.set_function(read)


class Series:
    """All series of the process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("requests_total", "Inference requests by outcome", "outcome")
        self.refused = self._counter("refused_total", "Inference requests refused at the door", "reason")
        self.rows = self._counter("rows_total", "Rows answered ok")
        self.in_flight = self._gauge("in_flight", "Requests admitted and not yet answered")
        self.queued_rows = self._gauge("queued_rows", "Rows admitted and not yet handed to the engine")
        self.backlog_seconds = self._gauge("backlog_seconds", "Queued and running rows over the measured rows/s")
        self.batch_rows = self._histogram("batch_rows", "Rows of each batch", ROWS)
        self.request_seconds = self._histogram("request_seconds", "Arrival to encoded reply, answered ok", SECONDS)
        self.queue_seconds = self._histogram("queue_seconds", "Admission to the start of the batch", SECONDS)
        self.engine_seconds = self._histogram("engine_seconds", "Run time of each batch", SECONDS)

    def model(self, name: str) -> ModelMetrics:
        """The series of one model; all of them exist from now on, at 0."""
        return ModelMetrics(self, name)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return prometheus_client.generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"nomadserve_{name}", text, ("model", *labels), registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"nomadserve_{name}", text, ("model",), registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"nomadserve_{name}", text, ("model",), registry=self.registry, buckets=buckets)
