"""What operations report while they work. `str(event)` is the line for people; `--json` encodes the struct itself."""

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag=True):
    """Base of all events."""


class EntryWritten(Event, frozen=True, kw_only=True):
    """A Consul config entry, or the gateway's record of a service, is changed."""

    action: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"consul: {self.action} {self.kind} {self.name}"


class JobRegistered(Event, frozen=True, kw_only=True):
    """Nomad took the job."""

    job_id: str

    def __str__(self) -> str:
        return f"nomad: job {self.job_id} registered"


class ReplicaChanged(Event, frozen=True, kw_only=True):
    """A replica is placed, started, restarted, healthy or ended."""

    allocation: str
    node: str
    state: str

    def __str__(self) -> str:
        return f"replica {self.allocation} on {self.node}: {self.state}"


class BuildMoved(Event, frozen=True, kw_only=True):
    """A build on a node begins, or is over."""

    allocation: str
    node: str
    state: str

    def __str__(self) -> str:
        return f"build {self.allocation} on {self.node}: {self.state}"


class LogLine(Event, frozen=True, kw_only=True):
    """What a task said."""

    text: str

    def __str__(self) -> str:
        return f"  | {self.text}"


class DeploymentProgress(Event, frozen=True, kw_only=True):
    """How far the deployment is."""

    healthy: int
    wanted: int

    def __str__(self) -> str:
        return f"{self.healthy} of {self.wanted} replicas healthy"


class WeightsServed(Event, frozen=True, kw_only=True):
    """Every healthy gateway answers by these weights."""

    service: str
    weights: str
    gateways: int
    seconds: float

    def __str__(self) -> str:
        gateways = "the gateway serves" if self.gateways == 1 else f"{self.gateways} gateways serve"
        return f"{gateways} {self.weights} after {self.seconds:.1f} s"


class JobStopped(Event, frozen=True, kw_only=True):
    """A job and all its replicas have ended."""

    job_id: str

    def __str__(self) -> str:
        return f"nomad: job {self.job_id} stopped"


class Note(Event, frozen=True, kw_only=True):
    """Something to know that is no failure."""

    text: str

    def __str__(self) -> str:
        return self.text


class Done(Event, frozen=True, kw_only=True):
    """The operation's result, last of all."""

    text: str
    hint: str = ""

    def __str__(self) -> str:
        return self.text
