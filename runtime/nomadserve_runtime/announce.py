"""What `nomadserve serve` says once it serves: models, their tensors, how fast they are, and a command to try."""

import logging
import math
from collections.abc import Mapping

import msgspec

from nomadserve_runtime.calls import Model
from nomadserve_runtime.config import Config, ModelConfig
from nomadserve_runtime.engine import Engine
from nomadserve_runtime.tensors import TEXT, blanks

log = logging.getLogger("nomadserve.main")

# A line of the log that people copy; the row of an image would fill the screen.
CURL_ELEMENTS_MAX = 256


def say_what_is_served(config: Config, models: Mapping[str, Model]) -> None:
    """Into the log, at level info."""
    where = f" (allocation {config.alloc_id})" if config.alloc_id else ""
    log.info("serving %s %s on http://%s:%d%s", config.service, config.version, config.host, config.port, where)
    for model in config.models:
        _say_model(model, models[model.name])
    log.info("try: %s", curl(config, {name: model.batcher.engine for name, model in models.items()}))


def _say_model(config: ModelConfig, model: Model) -> None:
    engine, calibration = model.batcher.engine, model.batcher.calibration
    log.info("model %s: %s, %s, batches of up to %d rows", config.name, config.path, config.engine, engine.batch_max)
    for direction, specs in (("in", engine.inputs), ("out", engine.outputs)):
        for spec in specs:
            log.info("model %s: %s %s", config.name, direction, spec)
    for profile in engine.profiles:
        for spec, least, most in zip(engine.inputs, profile.least, profile.most, strict=True):
            if not spec.is_fixed:
                log.info("model %s: rows of %s from %s to %s", config.name, spec.name, list(least), list(most))
    for line in calibration.table:
        rate = f"{line.rows / line.seconds:,.0f} rows/s" if line.seconds > 0 else "no time at all"
        log.info("model %s: batch of %d: %.3f ms, %s", config.name, line.rows, line.seconds * 1e3, rate)
    if calibration.table:
        place = "on the event loop" if calibration.is_inline else "in a thread"
        log.info("model %s: runs %s (a thread is %.3f ms away)", config.name, place, calibration.hop_s * 1e3)


def curl(config: Config, engines: Mapping[str, Engine]) -> str:
    """A command that works as it stands: one row of zeros, as small as it may be, for the first model."""
    name, engine = next(iter(engines.items()))
    at = f"http://{_reachable(config.host)}:{config.port}"
    shapes = engine.profiles[0].least if engine.profiles else tuple(spec.row_shape for spec in engine.inputs)
    if sum(map(math.prod, shapes)) <= CURL_ELEMENTS_MAX:
        body: dict[str, object] = {} if len(engines) == 1 else {"model": name}
        rows = {
            spec.name: blanks((1, *shape), spec.dtype).tolist()
            for spec, shape in zip(engine.inputs, shapes, strict=True)
        }
        text = msgspec.json.encode(body | {"inputs": rows}).decode().replace("'", r"'\''")
        return f"curl {at}/v1/inference --json '{text}'"
    if len(engine.inputs) == 1 and not engine.profiles and engine.inputs[0].dtype != TEXT:
        nbytes = engine.inputs[0].row_size * engine.inputs[0].dtype.itemsize
        return (
            f"head -c {nbytes} /dev/zero | curl {at}/v2/models/{name}/infer --data-binary @- "
            "-H 'content-type: application/octet-stream' -H 'inference-header-content-length: 0' -o reply.bin"
        )
    return f"GET {at}/schema; a row of this model is too long for a line"


def _reachable(host: str) -> str:
    """An address to connect to, where the process listens on all of them."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
