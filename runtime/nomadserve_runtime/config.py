"""The environment of the process → one frozen `Config`; every problem is named at once, with its variable."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

import msgspec

from nomadserve_runtime.errors import WrongSetting

MODELS = "NOMADSERVE_MODELS"
ENGINES = ("onnxruntime", "fake", "tensorrt")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|s|m|h)")
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

Value = TypeVar("Value")
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model to load; the items of `NOMADSERVE_MODELS`.

    Attributes:
        checksum: "sha256:<hex>" of the file, or empty for no check.
        threads: of the engine, for one batch; 0 leaves the choice to the engine.
        instances: how often it is set up on each GPU, to compute as many batches at once.
        warmup: runs of each batch size, before it is timed.
        precision: that an ONNX model is built with for TensorRT; empty for the engine's choice.
        profiles: which shapes its rows may have, where it leaves them open, and what TensorRT builds for: input →
            `min`, `opt`, `max` → shape, with the batch in it.
    """

    name: str
    path: str
    engine: str = "onnxruntime"
    max_batch: PositiveInt = 32
    checksum: str = ""
    instances: PositiveInt = 1
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    warmup: PositiveInt = 1
    precision: str = ""
    profiles: tuple[dict[str, dict[str, tuple[int, ...]]], ...] = ()


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What the process serves, and how.

    Attributes:
        queue_max: rows per model that may be admitted and not yet handed to the engine.
        queue_timeout_s: deadline of a request that names none; infinite where not set.
        batch_delay_s_max: how long a batch may wait for more rows while the engine is idle.
        batch_latency_target_s: how long a request may take, admission to answer; the wait for more rows adapts to it.
            Infinite where not set.
        drain_delay_s: after SIGTERM, how long requests are still taken while not ready.
        drain_timeout_s: after SIGTERM, when the process ends whatever is left.
        log_format: `text` or `json`.
        log_file: where the log goes; empty for stderr.
        access_log: whether every answered request gets a line.
        repository: whether clients may load and unload models.
        alloc_id: the Nomad allocation, for the log; empty outside Nomad.
    """

    service: str
    version: str
    models: tuple[ModelConfig, ...]
    host: str
    port: int
    queue_max: int
    queue_timeout_s: float
    batch_delay_s_max: float
    batch_latency_target_s: float
    drain_delay_s: float
    drain_timeout_s: float
    log_level: str
    log_format: str
    log_file: str
    access_log: bool
    repository: bool
    alloc_id: str


def load_config(environ: Mapping[str, str]) -> Config:
    """Read the variables of the contract from `environ`.

    Raises:
        WrongSetting: naming every variable that can't be used, and why.
    """
    read = _Reader(environ)
    models = read.required(MODELS, _models, why="it names the models to serve")
    config = Config(
        models=models,
        service=read("NOMADSERVE_SERVICE", _name, absent=models[0].name if models else ""),
        version=read("NOMADSERVE_VERSION", _name, absent="dev"),
        host=read("NOMADSERVE_HOST", str, absent="127.0.0.1"),
        port=read("NOMADSERVE_PORT", lambda text: _integer(text, least=1, most=65535), absent=8000),
        queue_max=read("NOMADSERVE_QUEUE_MAX", lambda text: _integer(text, least=1, most=1_000_000), absent=256),
        queue_timeout_s=read("NOMADSERVE_QUEUE_TIMEOUT", _timeout, absent=math.inf),
        batch_delay_s_max=read("NOMADSERVE_BATCH_MAX_DELAY", parse_duration, absent=0.0),
        batch_latency_target_s=read("NOMADSERVE_BATCH_LATENCY_TARGET", _latency_target, absent=math.inf),
        drain_delay_s=read("NOMADSERVE_DRAIN_DELAY", parse_duration, absent=0.0),
        drain_timeout_s=read("NOMADSERVE_DRAIN_TIMEOUT", parse_duration, absent=25.0),
        log_level=read("NOMADSERVE_LOG_LEVEL", _log_level, absent="info"),
        log_format=read("NOMADSERVE_LOG_FORMAT", _log_format, absent="text"),
        log_file=read("NOMADSERVE_LOG_FILE", str, absent=""),
        access_log=read("NOMADSERVE_ACCESS_LOG", _switch, absent=False),
        repository=read("NOMADSERVE_REPOSITORY", _switch, absent=False),
        alloc_id=environ.get("NOMAD_ALLOC_ID", ""),
    )
    read.require_no_problems()
    return config


def parse_duration(text: str) -> float:
    """Seconds of a Go-style duration: `250ms`, `5s`, `1m30s`.

    Raises:
        ValueError: saying what is expected.
    """
    if text == "0":
        return 0.0
    if not re.fullmatch(rf"(?:{_DURATION.pattern})+", text):
        raise ValueError("is no duration: write a number and a unit, such as `250ms`, `5s` or `2m`")
    return math.fsum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


class _Reader:
    """Reads one variable after the other and keeps every problem it meets."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[str] = []

    def __call__(self, variable: str, parse: Callable[[str], Value], *, absent: Value) -> Value:
        """The parsed value; `absent` where the variable is not set, empty, or can't be read."""
        text = self._environ.get(variable, "")
        if not text:
            return absent
        try:
            return parse(text)
        except ValueError as error:
            self._problems.append(f"`{variable}` {error}")
            return absent

    def required(self, variable: str, parse: Callable[[str], tuple[Value, ...]], *, why: str) -> tuple[Value, ...]:
        """The parsed items of a variable that must be set; none where there is a problem."""
        if not self._environ.get(variable):
            self._problems.append(f"`{variable}` is not set: {why}")
        return self(variable, parse, absent=())

    def require_no_problems(self) -> None:
        if self._problems:
            raise WrongSetting(
                "\n".join(self._problems), hint="`nomadserve serve --help` lists the options that set these variables"
            )


def _models(text: str) -> tuple[ModelConfig, ...]:
    try:
        models = msgspec.json.decode(text, type=tuple[ModelConfig, ...])
    except msgspec.DecodeError as error:
        raise ValueError(f"can't be read: {error}") from error
    if not models:
        raise ValueError("names no model")
    for place, model in enumerate(models):
        _check_model(model, f"$[{place}]")
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise ValueError("names a model twice")
    return models


def _check_model(model: ModelConfig, path: str) -> None:
    if not _NAME.fullmatch(model.name):
        raise ValueError(f"has a bad model name `{model.name}` - at `{path}.name`")
    if not model.path:
        raise ValueError(f"names no file - at `{path}.path`")
    if model.engine not in ENGINES:
        raise ValueError(f"names an unknown engine `{model.engine}`, not {_or(ENGINES)} - at `{path}.engine`")
    if model.checksum and not re.fullmatch(r"sha256:[0-9a-f]{64}", model.checksum):
        raise ValueError(f"has a checksum that is not `sha256:` and 64 hex digits - at `{path}.checksum`")
    if model.engine != "tensorrt":
        for key, standard in (("instances", 1), ("precision", "")):
            if getattr(model, key) != standard:
                raise ValueError(f"sets `{key}`, which only the engine `tensorrt` has - at `{path}.{key}`")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"is no name: `{text}` (letters, digits, `.`, `_` and `-`)")
    return text


def _integer(text: str, *, least: int, most: int) -> int:
    if not re.fullmatch(r"-?\d+", text):
        raise ValueError(f"is no whole number: `{text}`")
    if not least <= int(text) <= most:
        raise ValueError(f"is {text}, not from {least} to {most}")
    return int(text)


def _timeout(text: str) -> float:
    seconds = parse_duration(text)
    if seconds == 0:
        raise ValueError("is 0: no request could be answered; leave it away for no deadline")
    return seconds


def _latency_target(text: str) -> float:
    seconds = parse_duration(text)
    if seconds == 0:
        raise ValueError("is 0: no batch is done in no time; leave it away for no target")
    return seconds


def _log_level(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        raise ValueError(f"is `{text}`, not {_or(LOG_LEVELS)}")
    return text.lower()


def _log_format(text: str) -> str:
    if text.lower() not in LOG_FORMATS:
        raise ValueError(f"is `{text}`, not {_or(LOG_FORMATS)}")
    return text.lower()


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"is `{text}`, not `0` or `1`")
    return text == "1"


def _or(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words[:-1]) + f" or `{words[-1]}`"
