"""A model of the configuration → a loaded, calibrated `Model` with its batcher."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from nomadserve_runtime.batcher import Batcher
from nomadserve_runtime.calibration import calibrate
from nomadserve_runtime.calls import Model
from nomadserve_runtime.config import Config, ModelConfig
from nomadserve_runtime.engine import AheadEngine, Engine, open_engine
from nomadserve_runtime.errors import EngineLost, WrongSetting
from nomadserve_runtime.metrics import Series
from nomadserve_runtime.wire import ModelWire


def open_model(model: ModelConfig) -> Engine:
    """Check the file and open it. Takes its time, and needs no event loop.

    Raises:
        WrongSetting: the file is missing, corrupt, not the one that was asked for, or can't be served.
        CannotStart: the engine itself is not there.
    """
    path = Path(model.path)
    if model.checksum:
        check_sum(path, model.checksum)
    return open_engine(model)


async def start_model(
    config: Config, model: ModelConfig, engine: Engine, series: Series, *, on_lost: Callable[[EngineLost], None]
) -> Model:
    """Calibrate an engine and put a batcher in front of it; nothing else may use the engine.

    on_lost: called when the engine can't go on in this process.
    """
    name = model.name
    metrics = series.model(name)
    batcher = Batcher(
        engine,
        queue_max=config.queue_max,
        delay_s_max=config.batch_delay_s_max,
        latency_target_s=config.batch_latency_target_s,
        # In a thread, with an event loop of its own: other models may be serving.
        calibration=await asyncio.to_thread(asyncio.run, calibrate(engine, warmup=model.warmup)),
        metrics=metrics,
    )
    await asyncio.to_thread(batcher.touch)
    batcher.on_lost = on_lost
    if isinstance(engine, AheadEngine):
        metrics.cuda_graph_failures.inc(engine.graph_failures)
    wire = ModelWire(
        name,
        version=config.version,
        inputs=engine.inputs,
        outputs=engine.outputs,
        rows_max=batcher.rows_max,
        profiles=engine.profiles,
    )
    return Model(name, wire, batcher, metrics)


def check_sum(path: Path, wanted: str) -> None:
    """Refuse a file other than the one asked for: `wanted` is "sha256:<hex>".

    Raises:
        WrongSetting: it is another one, or can't be read.
    """
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
