"""What a simulation found out: what `--json` prints and what the page shows."""

from datetime import datetime

import msgspec


class Assumptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the file can't say; `bench` measures the first two.

    Attributes:
        capacity: requests a second that one replica answers.
        startup_s: from the decision to a replica that gets requests.
        placement_s: from the decision to a replica that Nomad counts as running.
        latency_s: of a request when nothing waits.
        scrape_s: how often Prometheus looks.
        replicas: at the start; None: as many as the policy would have for the first rate.
    """

    capacity: float
    startup_s: float
    placement_s: float = 1.0
    latency_s: float = 0.02
    scrape_s: float = 5.0
    replicas: int | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The autoscaler changed the count."""

    at_s: float
    before: int
    after: int
    why: str


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the simulation, from `at_s` to the next moment: means, but the longest wait."""

    at_s: float
    offered: float
    refused: float
    count: int
    ready: float
    wait_s: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of it.

    Attributes:
        requests, refused: counts.  refused_longest_s: the longest time without a break in refusals.
        wait_p50_s, wait_p99_s: in the queue, of the requests that were taken; None for none.
        replica_hours: of replicas that Nomad had, starting ones too.  gpu_hours: None without GPUs.
        hours_at_max: replica hours of a service that always has `max` replicas.
        notes: what was left out.
    """

    service: str
    trace: str
    starts_at: datetime
    seconds: float
    assumptions: Assumptions
    requests: float
    refused: float
    refused_longest_s: float
    wait_p50_s: float | None
    wait_p99_s: float | None
    replicas_max: int
    replicas_mean: float
    replica_hours: float
    gpu_hours: float | None
    hours_at_max: float
    changes: list[Change]
    moments: list[Moment]
    notes: list[str]

    @property
    def refused_share(self) -> float:
        """0 to 1."""
        return self.refused / self.requests if self.requests else 0.0
