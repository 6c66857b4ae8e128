"""The composition root: environment → models, batchers, application, server; and the process around them."""

import asyncio
import contextlib
import hashlib
import logging
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from nomadserve_runtime.app import App, Service
from nomadserve_runtime.batcher import Batcher
from nomadserve_runtime.config import Config, ModelConfig, load_config
from nomadserve_runtime.engine import Engine, open_engine
from nomadserve_runtime.errors import CannotStart, WrongSetting
from nomadserve_runtime.inference import Model
from nomadserve_runtime.lifecycle import Lifecycle
from nomadserve_runtime.metrics import Series
from nomadserve_runtime.server import serving
from nomadserve_runtime.wire import ModelWire

log = logging.getLogger("nomadserve.main")

FORCED = 1
INTERRUPTED = 130

# A line of the log that people copy; the row of an image would fill the screen.
CURL_ELEMENTS_MAX = 256


def main(environ: Mapping[str, str]) -> int:
    """Serve what the variables in `environ` say, until SIGTERM or SIGINT; return the exit code.

    0: drained, every request that was taken got its answer.  1: could not start, or not drained in time.
    2: a variable or a model file is wrong.
    """
    try:
        config = load_config(environ)
        _start_log(config.log_level)
        _allow_many_connections()
        return asyncio.run(_run(config, _open_engines(config)))
    except CannotStart as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # before `_run` took the signals over
        return INTERRUPTED


async def _run(config: Config, engines: Mapping[str, Engine]) -> int:
    told_to_end = _end_on_signals()
    lifecycle, series = Lifecycle(), Series()
    models = {name: _model(config, name, engine, series) for name, engine in engines.items()}
    batchers = [model.batcher for model in models.values()]
    service = Service(config.service, config.version, models, series, lifecycle)
    async with serving(App(service, timeout_s=config.queue_timeout_s), host=config.host, port=config.port):
        _say_what_is_served(config, engines)
        await told_to_end.wait()
        is_drained = await lifecycle.drain(batchers, delay_s=config.drain_delay_s, timeout_s=config.drain_timeout_s)
        if not is_drained:
            _exit_now()
    for batcher in batchers:
        batcher.close()
    log.info("drained; ending")
    return 0


def _open_engines(config: Config) -> dict[str, Engine]:
    return {model.name: _open(model) for model in config.models}


def _open(model: ModelConfig) -> Engine:
    path = Path(model.path)
    if model.checksum:
        _check_sum(path, model.checksum)
    return open_engine(model.engine, path, batch_max=model.max_batch, threads=model.threads)


def _check_sum(path: Path, wanted: str) -> None:
    try:
        with path.open("rb") as file:
            found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WrongSetting(f"can't read `{path}`: {error.strerror}", hint="check the path of the model") from error
    if found != wanted:
        raise WrongSetting(
            f"`{path}` is not the file that was asked for: its checksum is {found}, not {wanted}",
            hint="bring the file on this node up to date, or deploy the service again",
        )


def _model(config: Config, name: str, engine: Engine, series: Series) -> Model:
    metrics = series.model(name)
    batcher = Batcher(engine, queue_max=config.queue_max, delay_s_max=config.batch_delay_s_max, metrics=metrics)
    wire = ModelWire(
        name, version=config.version, inputs=engine.inputs, outputs=engine.outputs, rows_max=batcher.rows_max
    )
    return Model(name, wire, batcher, metrics)


# -- the process --------------------------------------------------------------------------------------------------


def _start_log(level: str) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    logging.getLogger("nomadserve").setLevel(level.upper())


def _allow_many_connections() -> None:
    """Every connection is a file descriptor; the soft limit is often 1024, made for programs that use `select`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _end_on_signals() -> asyncio.Event:
    """Set at the first SIGTERM or SIGINT; the second one ends the process on the spot."""
    told_to_end = asyncio.Event()

    def end() -> None:
        if told_to_end.is_set():
            log.warning("told twice to end: leaving everything as it is")
            _exit_now()
        told_to_end.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # asyncio learns of a signal by a byte in its wake-up socket. Under load the server's threads fill that socket,
        # and the byte is lost. So asyncio's own handler only wakes the loop; ours is called by Python, for sure.
        loop.add_signal_handler(number, _do_nothing)
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(end))
    signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
    return told_to_end


def _do_nothing() -> None:
    """For a handler that only has to be there."""


def _exit_now() -> None:
    """End without waiting for anybody: neither the engine's batch, nor the server's connections."""
    logging.shutdown()
    os._exit(FORCED)


# -- what it says -------------------------------------------------------------------------------------------------


def _say_what_is_served(config: Config, engines: Mapping[str, Engine]) -> None:
    where = f" (allocation {config.alloc_id})" if config.alloc_id else ""
    log.info("serving %s %s on http://%s:%d%s", config.service, config.version, config.host, config.port, where)
    for model in config.models:
        engine = engines[model.name]
        log.info("model %s: %s, %s, batches of up to %d rows", model.name, model.path, model.engine, engine.batch_max)
        for direction, specs in (("in", engine.inputs), ("out", engine.outputs)):
            for spec in specs:
                log.info("model %s: %s %s", model.name, direction, spec)
    log.info("try: %s", _curl(config, engines))


def _curl(config: Config, engines: Mapping[str, Engine]) -> str:
    """A command that works as it stands: one row of zeros for the first model."""
    first, engine = next(iter(engines.items()))
    body: dict[str, object] = {} if len(engines) == 1 else {"model": first}
    inputs = {spec.name: np.zeros((1, *spec.row_shape), spec.dtype) for spec in engine.inputs}
    if sum(array.size for array in inputs.values()) > CURL_ELEMENTS_MAX:
        return f"GET http://{config.host}:{config.port}/schema; a row of this model is too long for a line"
    body["inputs"] = {name: array.tolist() for name, array in inputs.items()}
    text = msgspec.json.encode(body).decode()
    return f"curl http://{config.host}:{config.port}/v1/inference --json '{text}'"


if __name__ == "__main__":
    sys.exit(main(os.environ))
