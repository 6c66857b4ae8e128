"""The composition root: environment → models, batchers, application, server; and the process around them."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from nomadserve_runtime import gpu
from nomadserve_runtime.announce import say_what_is_served
from nomadserve_runtime.app import App, Service
from nomadserve_runtime.calls import Model
from nomadserve_runtime.config import Config, load_config
from nomadserve_runtime.engine import Engine
from nomadserve_runtime.errors import CannotStart, EngineLost
from nomadserve_runtime.lifecycle import Lifecycle
from nomadserve_runtime.loading import open_model, start_model
from nomadserve_runtime.logs import start_log
from nomadserve_runtime.metrics import Series
from nomadserve_runtime.repository import Repository
from nomadserve_runtime.server import serving

log = logging.getLogger("nomadserve.main")

# How many objects are made and not freed before Python looks for garbage. An answered request leaves none; with
# Python's own 700, those under way are looked through every 400 requests, up to a millisecond long, while all wait.
OBJECTS_MIN = 20_000

FORCED = 1
LOST = 1
INTERRUPTED = 130


def main(environ: Mapping[str, str]) -> int:
    """Serve what the variables in `environ` say, until SIGTERM or SIGINT; return the exit code.

    0: drained, every request that was taken got its answer.  1: could not start, not drained in time, or an engine was
    lost: every request got its answer, and only a new process can compute.
    2: a variable or a model file is wrong.
    """
    try:
        config = load_config(environ)
        start_log(
            level=config.log_level,
            form=config.log_format,
            path=config.log_file,
            is_access_logged=config.access_log,
        )
        _allow_many_connections()
        gpu.show_only_given(os.environ)
        return asyncio.run(_run(config, _open_engines(config)))
    except CannotStart as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except EngineLost as error:  # while it was tried out
        print(f"error: the engine is lost: {error}", file=sys.stderr)
        return LOST
    except KeyboardInterrupt:  # before `_run` took the signals over
        return INTERRUPTED


async def _run(config: Config, engines: Mapping[str, Engine]) -> int:
    told_to_end = _end_on_signals()
    lost: list[EngineLost] = []

    def lose(failure: EngineLost) -> None:
        lost.append(failure)
        told_to_end.set()

    lifecycle, series = Lifecycle(), Series()
    sampler = _sample_gpus(config, series)
    repository = await _repository(config, engines, series, on_lost=lose)
    service = Service(config.service, config.version, repository, series, lifecycle)
    app = App(service, timeout_s=config.queue_timeout_s, is_access_logged=config.access_log)
    # What is there now stays; looking through it for garbage again and again would only cost time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_MIN)
    async with serving(app, host=config.host, port=config.port, is_idle=app.is_idle) as sockets:
        app.when_idle(sockets.look_out_soon)
        say_what_is_served(config, repository.models)
        await told_to_end.wait()
        if lost:
            log.critical("the engine is lost: %s; ending with exit code %d, to be started anew", lost[0], LOST)
        batchers = [model.batcher for model in repository.models.values()]
        delay_s = 0.0 if lost else config.drain_delay_s
        is_drained = await lifecycle.drain(batchers, delay_s=delay_s, timeout_s=config.drain_timeout_s)
        if not is_drained:
            _exit_now(FORCED)
    if lost:  # the driver may hang, or abort the process, where such an engine is closed
        _exit_now(LOST)
    for batcher in batchers:
        batcher.close()
    if sampler is not None:
        sampler.close()
    log.info("drained; ending")
    return 0


async def _repository(
    config: Config, engines: Mapping[str, Engine], series: Series, *, on_lost: Callable[[EngineLost], None]
) -> Repository:
    by_name = {model.name: model for model in config.models}

    async def start(name: str, engine: Engine) -> Model:
        return await start_model(config, by_name[name], engine, series, on_lost=on_lost)

    return Repository(
        {name: await start(name, engine) for name, engine in engines.items()},
        open_model=lambda name: open_model(by_name[name]),
        start_model=start,
        is_open=config.repository,
    )


def _sample_gpus(config: Config, series: Series) -> gpu.GpuSampler | None:
    """Put the GPUs of this replica into the metrics, where it has any."""
    if not gpu.are_given(os.environ) and all(model.engine != "tensorrt" for model in config.models):
        return None
    sampler = gpu.start_sampling(os.environ)
    if sampler is not None:
        series.gpus = lambda: sampler.readings
    return sampler


def _open_engines(config: Config) -> dict[str, Engine]:
    return {model.name: open_model(model) for model in config.models}


# -- the process --------------------------------------------------------------------------------------------------


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
            _exit_now(FORCED)
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


def _exit_now(code: int) -> NoReturn:
    """End without waiting for anybody: neither the engine's batch, nor the server's connections."""
    logging.shutdown()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main(os.environ))
