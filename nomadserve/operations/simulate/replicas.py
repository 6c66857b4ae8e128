"""The replicas of the simulation: they start, answer at their capacity, queue, refuse, stop. Pure.

Load is a fluid: within a tick it arrives evenly, and every ready replica gets an equal share. What differs from life:
bursts shorter than a tick, and the time that a batch takes, are not in the wait; `bench` shows those.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from nomadserve.operations.simulate.promql import Sample

SAMPLES_KEPT_S = 1800.0


@dataclass(slots=True)
class Replica:
    """One replica.

    Attributes:
        running_at: when Nomad counts it as running.  ready_at: when it gets requests.
        stopped_at: when it was told to end; infinite until then.
        queued: requests that wait.
        finished: requests answered or refused, ever: what `nomadserve_requests_total` counts.
        arriving: requests a second in the last tick.
    """

    running_at: float
    ready_at: float
    stopped_at: float = float("inf")
    queued: float = 0.0
    finished: float = 0.0
    arriving: float = 0.0
    requests: list[Sample] = field(default_factory=list)
    in_flight: list[Sample] = field(default_factory=list)

    def is_running(self, now: float) -> bool:
        """Whether Nomad counts it."""
        return self.running_at <= now < self.stopped_at

    def is_ready(self, now: float) -> bool:
        """Whether the gateway sends it requests."""
        return self.ready_at <= now < self.stopped_at


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica can do.

    Attributes:
        rate: requests a second.
        queued_max: requests that may wait; a deadline that is shorter than the queue makes it shorter.
        latency_s: of a request when nothing waits; it counts as in flight for that long.
    """

    rate: float
    queued_max: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    """What became of the requests of one tick: counts, and the wait in seconds of those that were taken."""

    offered: float
    refused: float
    waits: tuple[tuple[float, float], ...]

    @property
    def wait_s(self) -> float:
        """The longest wait."""
        return max((wait_s for wait_s, _ in self.waits), default=0.0)


def serve(ready: list[Replica], offered: float, seconds: float, capacity: Capacity) -> Tick:
    """One tick: `offered` requests arrive, evenly, and every replica works for `seconds`."""
    if not ready:
        return Tick(offered, offered, ())
    share = offered / len(ready)
    refused, waits = 0.0, []
    for replica in ready:
        waiting = replica.queued + share
        answered = min(waiting, capacity.rate * seconds)
        waiting -= answered
        overflow = max(0.0, waiting - capacity.queued_max)
        before, replica.queued = replica.queued, waiting - overflow
        replica.finished += answered + overflow
        replica.arriving = share / seconds
        refused += overflow
        # Those that came in this tick met a queue between the one before and the one after.
        waits.append(((before + replica.queued) / 2 / capacity.rate, share - min(overflow, share)))
    return Tick(offered, refused, tuple(waits))


def scrape(replicas: Iterable[Replica], now: float, capacity: Capacity) -> None:
    """Prometheus reads every replica: its counter is seen at 0, before the first request comes."""
    for replica in replicas:
        if replica.is_running(now):
            working = min(replica.arriving, capacity.rate) * capacity.latency_s
            replica.requests.append((now, replica.finished))
            replica.in_flight.append((now, replica.queued + working))


def forget(replicas: list[Replica], now: float) -> None:
    """Drop what no query can reach any more."""
    replicas[:] = [replica for replica in replicas if now - replica.stopped_at < SAMPLES_KEPT_S]
    for replica in replicas:
        for samples in (replica.requests, replica.in_flight):
            if samples and now - samples[0][0] > 2 * SAMPLES_KEPT_S:
                del samples[: next(n for n, (at, _) in enumerate(samples) if now - at <= SAMPLES_KEPT_S)]
