"""Every series that the runtime exports, declared once. The autoscaler's queries rely on these names and labels.

A request counts in plain numbers of the event loop; they become Prometheus families only when somebody scrapes.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import prometheus_client
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from nomadserve_runtime.gpu import GpuReading

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

OUTCOMES = ("ok", "invalid", "refused", "expired", "failed", "abandoned")
REFUSALS = ("queue_full", "draining", "deadline")

# From half a millisecond, where a small model answers, to the minute that the longest batches take.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

# All that so many requests leave is counted in about 0.15 ms, while every other request waits: numpy's calls are paid
# for with less than 1 µs a request, and nobody notices.
GATHERED_MAX = 512


class Count:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """Add to it."""
        self.value += amount


class Spread:
    """How often a value fell between which bounds, and the sum of all values.

    Values are gathered first, and counted all at once by `sweep`: whoever observes pays for an append.
    """

    __slots__ = ("_bounds", "_counts", "_gathered", "_total", "observe")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)  # the last one is for what lies above all bounds
        self._total = 0.0
        self._gathered: list[float] = []
        self.observe: Callable[[float], None] = self._gathered.append  # counts one value

    @property
    def gathered(self) -> int:
        """How many values are not counted yet."""
        return len(self._gathered)

    @property
    def count(self) -> int:
        """How many values there were."""
        self.sweep()
        return int(self._counts.sum())

    @property
    def total(self) -> float:
        """The sum of all values."""
        self.sweep()
        return self._total

    def sweep(self) -> None:
        """Count what was gathered."""
        if self._gathered:
            self.add_all(np.array(self._gathered))
            self._gathered.clear()

    def add_all(self, values: np.ndarray) -> None:
        """Count so many values at once."""
        places = np.searchsorted(self._bounds, values)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._total += float(values.sum())

    def buckets(self) -> list[tuple[str, float]]:
        """Bound and how many values were not above it, as Prometheus has it."""
        self.sweep()
        words = [*map(floatToGoString, self._bounds.tolist()), "+Inf"]
        return list(zip(words, np.cumsum(self._counts).astype(float).tolist(), strict=True))


class Stages:
    """How long the answered requests spent where, in seconds; gathered first, as in `Spread`.

    Attributes:
        add: counts one request by five moments, monotonic seconds: when it arrived, when its rows were in the queue,
            when its batch started and ended, when its reply was encoded.
    """

    # From the head to the rows in the queue: reading and decoding the body; in the queue; in the engine, for each
    # request of a batch the whole batch's time; from the end of the batch to the encoded reply.
    WORDS = ("receive", "queue", "engine", "reply")

    __slots__ = ("_gathered", "_receive", "_reply", "_request", "_sums", "add")

    def __init__(self) -> None:
        self._receive, self._reply, self._request = Spread(SECONDS), Spread(SECONDS), Spread(SECONDS)
        self._sums = np.zeros(len(self.WORDS))
        self._gathered: list[float] = []
        self.add: Callable[[tuple[float, float, float, float, float]], None] = self._gathered.extend

    @property
    def gathered(self) -> int:
        """How many requests are not counted yet."""
        return len(self._gathered) // (len(self.WORDS) + 1)

    def sweep(self) -> None:
        """Sum up what was gathered."""
        if self._gathered:
            moments = np.array(self._gathered).reshape(-1, len(self.WORDS) + 1)
            self._gathered.clear()
            stages = moments[:, 1:] - moments[:, :-1]
            self._sums += stages.sum(axis=0)
            self._receive.add_all(stages[:, 0])
            self._reply.add_all(stages[:, -1])
            self._request.add_all(moments[:, -1] - moments[:, 0])

    @property
    def receive(self) -> Spread:
        """The first stage of each request."""
        self.sweep()
        return self._receive

    @property
    def reply(self) -> Spread:
        """The last stage of each request."""
        self.sweep()
        return self._reply

    @property
    def request(self) -> Spread:
        """All stages of each request together."""
        self.sweep()
        return self._request

    def seconds(self) -> dict[str, float]:
        """The sums, by the words above."""
        self.sweep()
        return dict(zip(self.WORDS, self._sums.tolist(), strict=True))


def _zero() -> float:
    return 0.0


class ModelMetrics:
    """The numbers of one model. Only the event loop writes them.

    Attributes:
        outcome: requests per outcome, by the words of `OUTCOMES`.
        refused: requests per reason of a refusal, by the words of `REFUSALS`.
        rows: rows answered ok.
        expired_rows: rows whose deadline passed before their batch was launched.
        abandoned_rows: rows whose client hung up.
        padded_rows: rows that were run only to fill a batch up.
        cuda_graph_failures: batch sizes that an engine on a GPU launches kernel by kernel.
        nan_rows: answered rows with a number in them that is not finite.
        batch_rows: rows of each batch that ran.
        queue_seconds: from admission to the start of its batch.
        engine_seconds: of each batch.
        stages: where the requests that were answered ok spent their time.
    """

    def __init__(self) -> None:
        self.outcome = {word: Count() for word in OUTCOMES}
        self.refused = {word: Count() for word in REFUSALS}
        self.rows = Count()
        self.expired_rows = Count()
        self.abandoned_rows = Count()
        self.padded_rows = Count()
        self.nan_rows = Count()
        self.cuda_graph_failures = Count()
        self.batch_rows = Spread(ROWS)
        self.queue_seconds = Spread(SECONDS)
        self.engine_seconds = Spread(SECONDS)
        self.stages = Stages()
        self.unwatch()

    def sweep(self) -> None:
        """Count what the histograms gathered, where that is much."""
        for gathering in (self.stages, self.queue_seconds, self.batch_rows, self.engine_seconds):
            if gathering.gathered >= GATHERED_MAX:
                gathering.sweep()

    @property
    def request_seconds(self) -> Spread:
        """From the request's arrival to its encoded reply; those answered ok."""
        return self.stages.request

    @property
    def receive_seconds(self) -> Spread:
        """From the request's arrival to its rows in the queue; those answered ok."""
        return self.stages.receive

    @property
    def reply_seconds(self) -> Spread:
        """From the end of the batch to the encoded reply; those answered ok."""
        return self.stages.reply

    def unwatch(self) -> None:
        """The model is not loaded: its gauges say 0."""
        self.in_flight: Callable[[], float] = _zero
        self.queued_rows: Callable[[], float] = _zero
        self.backlog_seconds: Callable[[], float] = _zero

    def watch(
        self,
        *,
        in_flight: Callable[[], float],
        queued_rows: Callable[[], float],
        backlog_seconds: Callable[[], float],
    ) -> None:
        """Read these gauges when somebody scrapes; a request costs them nothing."""
        self.in_flight = in_flight
        self.queued_rows = queued_rows
        self.backlog_seconds = backlog_seconds


# Name of the series, its attribute in `ModelMetrics`, what it tells.
COUNTERS = (
    ("rows", "Rows answered ok"),
    ("expired_rows", "Rows whose deadline passed before their batch was launched"),
    ("abandoned_rows", "Rows whose client hung up"),
    ("padded_rows", "Rows run only to fill a batch up"),
    ("nan_rows", "Rows answered with a number that is not finite"),
    ("cuda_graph_failures", "Batch sizes that run without a CUDA graph because it could not be recorded"),
)
GAUGES = (
    ("in_flight", "Requests admitted and not yet answered"),
    ("queued_rows", "Rows admitted and not yet handed to the engine"),
    ("backlog_seconds", "Queued and running rows over the measured rows/s"),
)
HISTOGRAMS = (
    ("batch_rows", "Rows of each batch"),
    ("request_seconds", "Arrival to encoded reply, answered ok"),
    ("receive_seconds", "Arrival to the rows in the queue, answered ok"),
    ("queue_seconds", "Admission to the start of the batch"),
    ("engine_seconds", "Run time of each batch"),
    ("reply_seconds", "End of the batch to encoded reply, answered ok"),
)
# Name of the series, which is that of the attribute of a `GpuReading`; what it tells.
GPU_GAUGES = (
    ("utilization", "Percent of the last seconds in which the GPU computed anything"),
    ("memory_used_bytes", "Memory of the GPU in use, whoever uses it"),
    ("memory_total_bytes", "Memory of the GPU"),
    ("power_watts", "What the GPU draws"),
    ("temperature_celsius", "How warm the GPU is"),
)


class Series(Collector):
    """All series of the process, in a registry of their own.

    Attributes:
        gpus: what is known of each GPU; asked when somebody scrapes, so it must answer at once.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.gpus: Callable[[], Sequence[GpuReading]] = tuple
        self._models: dict[str, ModelMetrics] = {}
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def model(self, name: str) -> ModelMetrics:
        """The numbers of one model; all its series exist from now on, at 0."""
        return self._models.setdefault(name, ModelMetrics())

    def render(self) -> bytes:
        """The Prometheus text format."""
        return prometheus_client.generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """The families, for the registry."""
        yield self._words("requests", "Inference requests by outcome", "outcome")
        yield self._words("refused", "Inference requests refused at the door", "reason")
        for name, text in COUNTERS:
            counter = CounterMetricFamily(f"nomadserve_{name}", text, labels=["model"])
            for model, metrics in self._models.items():
                counter.add_metric([model], getattr(metrics, name).value)
            yield counter
        yield self._stages()
        for name, text in GAUGES:
            gauge = GaugeMetricFamily(f"nomadserve_{name}", text, labels=["model"])
            for model, metrics in self._models.items():
                gauge.add_metric([model], getattr(metrics, name)())
            yield gauge
        for name, text in HISTOGRAMS:
            histogram = HistogramMetricFamily(f"nomadserve_{name}", text, labels=["model"])
            for model, metrics in self._models.items():
                spread: Spread = getattr(metrics, name)
                histogram.add_metric([model], spread.buckets(), spread.total)
            yield histogram
        yield from self._gpu_gauges()

    def _gpu_gauges(self) -> Iterator[GaugeMetricFamily]:
        readings = self.gpus()
        if not readings:
            return
        for name, text in GPU_GAUGES:
            gauge = GaugeMetricFamily(f"nomadserve_gpu_{name}", text, labels=["gpu"])
            for reading in readings:
                value = getattr(reading, name)
                if value is not None:
                    gauge.add_metric([reading.gpu], value)
            yield gauge

    def _stages(self) -> CounterMetricFamily:
        text = "Where the requests answered ok spent their time"
        family = CounterMetricFamily("nomadserve_stage_seconds", text, labels=["model", "stage"])
        for model, metrics in self._models.items():
            for stage, seconds in metrics.stages.seconds().items():
                family.add_metric([model, stage], seconds)
        return family

    def _words(self, name: str, text: str, label: str) -> CounterMetricFamily:
        """A counter with one series per word: `requests` by outcome, `refused` by reason."""
        family = CounterMetricFamily(f"nomadserve_{name}", text, labels=["model", label])
        for model, metrics in self._models.items():
            counts = metrics.outcome if label == "outcome" else metrics.refused
            for word, count in counts.items():
                family.add_metric([model, word], count.value)
        return family
