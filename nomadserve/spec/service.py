"""What a service file may say: one frozen Struct per block, one field per key, every default in sight.

A field's name is the key's name, except where a repeated block reads better in the plural. Times are `Seconds`,
amounts of memory `Mebibytes`. What a single field can't express stands in `rules`.
"""

import re
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, field

from nomadserve.spec.units import Mebibytes, MemoryBound, Seconds

PLAN_SUFFIXES = (".plan", ".engine", ".trt")
REMOTE = re.compile(r"(?:[a-z0-9]+::|[a-z][a-z0-9+.-]*://)")

PositiveInt = Annotated[int, Meta(ge=1)]
Sizes = tuple[Annotated[int, Meta(ge=0)], ...]
Percent = Annotated[float, Meta(gt=0, le=100)]


class Block(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A block of the file.

    Attributes:
        planned: keys and blocks of the language that this release refuses by name.
    """

    planned: ClassVar[frozenset[str]] = frozenset()


class Named(Block, frozen=True, kw_only=True):
    """A block that is written with a label: `model "digits" { … }`."""

    name: str


class InputShapes(Named, frozen=True, kw_only=True):
    """The shapes of one input that a profile covers, the batch first: at least, at best, at most."""

    min: Sizes
    opt: Sizes
    max: Sizes


class Profile(Block, frozen=True, kw_only=True):
    """Shapes that TensorRT prepares a plan for; a model may have several."""

    inputs: tuple[InputShapes, ...] = field(default=(), name="input")


class Model(Named, frozen=True, kw_only=True):
    """One model that every replica of the service serves.

    `source` is an absolute path for a local file, else an address that Nomad fetches. For a local file, `checksum`
    is always there, so that a changed file rolls the job and a wrong file on a node is noticed.
    """

    source: str
    checksum: str | None = None
    engine: Literal["auto", "tensorrt", "onnxruntime", "fake"] = "auto"
    max_batch: PositiveInt = 32
    threads: PositiveInt | None = None
    precision: Literal["fp32", "tf32", "fp16", "bf16", "int8", "fp8"] | None = None
    profiles: tuple[Profile, ...] = field(default=(), name="profile")
    instances: PositiveInt = 1
    warmup: PositiveInt = 1

    @property
    def is_remote(self) -> bool:
        """Whether Nomad fetches the file, rather than finding it on the node."""
        return bool(REMOTE.match(self.source))

    @property
    def suffix(self) -> str:
        """The ending of the file's name, wherever it lies."""
        path = urlsplit(self.source.rpartition("::")[2]).path if self.is_remote else self.source
        return PurePosixPath(path).suffix

    @property
    def is_plan(self) -> bool:
        """Whether the file is a plan that TensorRT built before."""
        return self.suffix in PLAN_SUFFIXES


class Preference(Block, frozen=True, kw_only=True):
    """A wish about the GPU, weighed against others; one of `memory`, `model`, `driver_version`."""

    memory: MemoryBound | None = None
    model: str | None = None
    driver_version: str | None = None
    weight: Annotated[int, Meta(ge=-100, le=100)] = 50


class Gpu(Block, frozen=True, kw_only=True):
    """The devices each replica needs; all of one kind, none shared."""

    count: PositiveInt = 1
    name: str = "nvidia/gpu"
    memory: MemoryBound | None = None
    model: str | None = None
    driver_version: str | None = None
    preferences: tuple[Preference, ...] = field(default=(), name="prefer")


class Resources(Block, frozen=True, kw_only=True):
    """What each replica asks of a node; `cpu` in MHz, or whole `cores`."""

    cpu: PositiveInt | None = None
    cores: PositiveInt | None = None
    memory: Mebibytes = Mebibytes(1024)
    memory_max: Mebibytes | None = None

    cpu_default: ClassVar[int] = 500

    @property
    def cpu_mhz(self) -> int | None:
        """The MHz asked for; None where whole cores are."""
        return None if self.cores else self.cpu or self.cpu_default


class Batching(Block, frozen=True, kw_only=True):
    """How requests are put together; `max_delay` is how long a batch may wait while the engine is idle.

    With a `latency_target`, that wait adapts: as long as requests are answered within the target.
    """

    planned = frozenset({"sizes"})

    max_delay: Seconds = Seconds(0)
    latency_target: Seconds | None = None


class Queue(Block, frozen=True, kw_only=True):
    """What may wait: at most `max` rows for each model, each for at most `timeout`."""

    planned = frozenset({"priorities"})

    max: Annotated[int, Meta(ge=1, le=1_000_000)] = 256
    timeout: Seconds | None = None


class Target(Block, frozen=True, kw_only=True, tag_field="kind"):
    """A load that one replica should carry; measured over `window`."""

    value: Annotated[float, Meta(gt=0)]
    window: Seconds = Seconds(30)  # with it, a step in load is answered within a minute

    @property
    def kind(self) -> str:
        """The label of the block, and the name of its template in `jobs/targets`."""
        return str(self.__struct_config__.tag)


class RequestsPerSecond(Target, frozen=True, kw_only=True, tag="requests_per_second"):
    """Requests a second that one replica should answer."""


class InFlight(Target, frozen=True, kw_only=True, tag="in_flight"):
    """Requests that one replica should have in work at once."""


class BacklogSeconds(Target, frozen=True, kw_only=True, tag="backlog_seconds"):
    """Seconds of work that may wait at one replica."""


class CpuLoad(Target, frozen=True, kw_only=True, tag="cpu"):
    """Percent of its whole `cores` that one replica should use."""

    value: Percent


class GpuLoad(Target, frozen=True, kw_only=True, tag="gpu"):
    """Percent of its GPUs' time that one replica should use."""

    value: Percent


AnyTarget = RequestsPerSecond | InFlight | BacklogSeconds | CpuLoad | GpuLoad


class Schedule(Named, frozen=True, kw_only=True):
    """At least `min` replicas from each `start` to the next `end`; both cron, five fields, in `timezone`."""

    start: str
    end: str
    min: PositiveInt
    timezone: str = "UTC"


class Scaling(Block, frozen=True, kw_only=True):
    """How many replicas there are: the largest number that any target, schedule or query asks for.

    With a `min` of 0, the last replica goes after `idle` without a request, and the next request starts one; the
    gateway keeps that request for `hold` at most.
    """

    min: Annotated[int, Meta(ge=0)]
    max: PositiveInt
    max_total: PositiveInt | None = None
    targets: tuple[AnyTarget, ...] = field(default=(), name="target")
    schedules: tuple[Schedule, ...] = field(default=(), name="schedule")
    query: str | None = None
    idle: Seconds = Seconds(600)
    hold: Seconds = Seconds(30)
    overprovision: Annotated[float, Meta(ge=0, le=5)] = 0.0
    evaluation_interval: Seconds | None = None
    cooldown: Seconds = Seconds(300)
    cooldown_on_scale_up: Seconds = Seconds(10)
    max_scale_up: PositiveInt | None = None
    max_scale_down: PositiveInt | None = None

    @property
    def sleeps(self) -> bool:
        """Whether there may be no replica at all."""
        return self.min == 0

    @property
    def rest_after_scale_down(self) -> Seconds:
        """How long the autoscaler changes nothing after it took replicas away; none where that may have been all."""
        return Seconds(1) if self.sleeps else self.cooldown_on_scale_up

    @property
    def evaluated_every(self) -> Seconds:
        """How often the autoscaler asks; soon where a request may be waiting for it."""
        return self.evaluation_interval or Seconds(2 if self.sleeps else 10)


class Spot(Block, frozen=True, kw_only=True):
    """What replicas make of nodes that may be taken away: exactly one of `prefer`, `avoid` and `only`.

    Attributes:
        attribute: what a spot node is known by, as Nomad knows it, with `value` as its value.
        replace_on_disconnect: a replica whose node is silent is replaced at once; else it waits for the node first.
        on_demand_min: so many replicas never run on a spot node.
    """

    prefer: bool = False
    avoid: bool = False
    only: bool = False
    attribute: str = "meta.nomadserve_spot"
    value: str = "true"
    replace_on_disconnect: bool = True
    on_demand_min: Annotated[int, Meta(ge=0)] = 0

    wait: ClassVar[Seconds] = Seconds(300)
    """How long a replica waits for its node, where it is not replaced at once."""

    @property
    def wishes(self) -> tuple[str, ...]:
        """Those of `prefer`, `avoid` and `only` that are given: one, where the file is right."""
        return tuple(key for key in ("prefer", "avoid", "only") if getattr(self, key))


class Update(Block, frozen=True, kw_only=True):
    """How a changed file reaches the replicas of the same version.

    `canary` new replicas get healthy beside the old ones before the first old one stops. How long a deployment may
    take where the deadlines are not given, the service knows.
    """

    canary: Annotated[int, Meta(ge=0)] = 1
    max_parallel: PositiveInt = 1
    min_healthy_time: Seconds = Seconds(2)
    healthy_deadline: Seconds | None = None
    progress_deadline: Seconds | None = None
    auto_revert: bool = True


class Service(Named, frozen=True, kw_only=True):
    """One version of a service: the whole file."""

    planned = frozenset({"auth", "limits", "cache", "jobs", "mesh", "template"})

    version: str = "v1"
    models: tuple[Model, ...] = field(default=(), name="model")
    replicas: PositiveInt | None = None
    datacenters: tuple[str, ...] = ("*",)
    namespace: str | None = None
    node_pool: str | None = None
    region: str | None = None
    driver: Literal["raw_exec", "exec", "docker", "podman"] = "raw_exec"
    image: str | None = None
    engine_cache: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    request_timeout: Seconds = Seconds(300)
    gpu: Gpu | None = None
    resources: Resources = Resources()
    batching: Batching = Batching()
    queue: Queue = Queue()
    scaling: Scaling | None = None
    spot: Spot | None = None
    update: Update = Update()

    @property
    def job_id(self) -> str:
        """Name of this version's Nomad job and Consul service."""
        return f"{self.name}-{self.version}"

    @property
    def count(self) -> int:
        """Replicas that a first deployment starts: one at least, which shows that the version gets healthy."""
        return max(1, self.scaling.min) if self.scaling else self.replicas or 1

    def engine_of(self, model: Model) -> str:
        """The engine that the runtime is told to load: `auto` is TensorRT where a GPU is asked for."""
        if model.engine != "auto":
            return model.engine
        return "tensorrt" if self.gpu and (model.is_plan or model.suffix == ".onnx") else "onnxruntime"

    @property
    def built(self) -> tuple[Model, ...]:
        """The models that TensorRT builds a plan of when the first replica of a node starts."""
        return tuple(model for model in self.models if self.engine_of(model) == "tensorrt" and not model.is_plan)

    @property
    def healthy_deadline(self) -> Seconds:
        """How long one replica may take to get healthy; a first build takes minutes, for large models many."""
        given = self.update.healthy_deadline
        return Seconds(1800 if self.built else 300) if given is None else given

    @property
    def progress_deadline(self) -> Seconds:
        """How long it may take from one replica that gets healthy to the next."""
        given = self.update.progress_deadline
        return Seconds(3600 if self.built else 600) if given is None else given

    @property
    def on_demand_min(self) -> int:
        """Replicas that have a group of their own, which never runs on a spot node."""
        return self.spot.on_demand_min if self.spot else 0
