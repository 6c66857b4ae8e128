"""What the two processes tell each other, one JSON line each."""

import msgspec


class Aim(msgspec.Struct, frozen=True, kw_only=True):
    """Where the requests go. The first line that the child reads.

    Attributes:
        host: the `Host` header, and `address` where the name needs no look-up.
        bodies: JSON texts, sent in turn.
        connections_max: more requests than this are never under way at once.
    """

    address: str
    port: int
    host: str
    path: str
    bodies: tuple[str, ...]
    headers: dict[str, str] = {}
    connections_max: int = 2048


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Requests at one constant rate. Every further line that the child reads.

    Attributes:
        rate: requests a second; 0 sends nothing for that long.
        seconds: how long they leave, all in all.
        settle_seconds: those that were due in these first seconds are sent, and not counted.
        timeout_s: a reply that takes longer, from when its request was due, counts as none.
        drain: wait for all replies before the result is told; else the next load follows at once.
    """

    rate: float
    seconds: float
    settle_seconds: float = 0.0
    timeout_s: float = 10.0
    drain: bool = True


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Where a load stands: requests sent, answered well, refused or failed so far."""

    elapsed_s: float
    sent: int
    ok: int
    refused: int
    failed: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag="outcome"):
    """What came of one load. Latencies are of good answers, counted from when each request was due.

    Attributes:
        rate: offered, requests a second.
        seconds: over which requests were counted.
        sent: requests that were due and counted.
        ok: answered with 200.  refused: answered with 503.
        failures: all others by cause: a status, `timeout`, `connection lost`, `connection refused`, `not sent`.
        latency_ms: percentiles `p50`, `p90`, `p99`, `p99.9` and `max`; empty where nothing was answered well.
        lag_ms: how late requests left, `p50`, `p99` and `max`: the generator's own doing.
        cpu_share: processor time of the generator, as a share of one core.
    """

    rate: float
    seconds: float
    sent: int
    ok: int
    refused: int
    failures: dict[str, int]
    latency_ms: dict[str, float]
    lag_ms: dict[str, float]
    connections: int
    cpu_share: float

    @property
    def throughput(self) -> float:
        """Good answers a second."""
        return self.ok / self.seconds if self.seconds > 0 else 0.0

    @property
    def failed(self) -> int:
        """Requests neither answered well nor refused."""
        return sum(self.failures.values())

    @property
    def error_share(self) -> float:
        """Share of the requests that got no good answer, refusals among them; 0 to 1."""
        return (self.refused + self.failed) / self.sent if self.sent else 0.0
