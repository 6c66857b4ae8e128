"""TensorRT behind the runtime's engine protocol: one worker for each GPU of the replica, or several."""

import logging
import os
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.engines.trt import cuda, faults
from nomadserve_runtime.engines.trt.bindings import Bindings, find_bindings
from nomadserve_runtime.engines.trt.cache import Plan, discard, plan_for
from nomadserve_runtime.engines.trt.options import options_of
from nomadserve_runtime.engines.trt.pipeline import Pipeline
from nomadserve_runtime.engines.trt.signature import signature_of
from nomadserve_runtime.engines.trt.worker import Done, Worker
from nomadserve_runtime.slots import Slot

log = logging.getLogger("nomadserve.tensorrt")

# Set to 0 where graphs are suspected of something; batches then run as TensorRT enqueues them.
GRAPHS = "NOMADSERVE_CUDA_GRAPHS"


class TrtEngine:
    """A plan on every GPU that this process sees. Its methods may be called from any thread, one at a time."""

    platform = "tensorrt_plan"

    def __init__(self, workers: list[Worker]) -> None:
        first = workers[0].pipeline
        self.inputs = first.signature.inputs
        self.outputs = first.outputs
        self.batch_max = first.batch_max
        self.profiles = first.signature.row_profiles
        self.output_shapes_max = first.output_shapes_max
        self.parallel = len(workers)
        self.graph_failures = sum(worker.pipeline.graph_failures for worker in workers)
        self._run_rows = first.run_rows
        self._seconds = first.seconds
        self._workers = workers

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Page-locked memory, for every GPU. It is gone after `close`.

        Raises:
            CannotStart: there is not as much.
        """
        try:
            return self._workers[0].call(lambda pipeline: pipeline.host_array(shape, dtype))
        except cuda.driver.Error as error:
            raise faults.no_page_locked_memory(shape, dtype, error) from error

    def start(self, slot: Slot, rows: int, done: Done) -> None:
        """Give the batch to the GPU that has the fewest."""
        min(self._workers, key=_under_way).start(slot, rows, done)

    def run(self, slot: Slot, rows: int) -> None:
        """The same, and wait for it."""
        ended: SimpleQueue[Exception | None] = SimpleQueue()
        self.start(slot, rows, ended.put)
        failure = ended.get()
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # else it would hold itself, and CUDA's streams with it

    def run_rows(self, rows: int) -> int:
        """As many as the prepared batch size has that is done soonest."""
        return self._run_rows[rows - 1]

    def known_seconds(self, rows: int) -> float | None:
        """As timed on the first GPU when it was set up; None where that depends on the shapes of the rows."""
        return self._seconds[rows - 1] if self._seconds else None

    def close(self) -> None:
        """End the threads after the batches that they have."""
        for worker in self._workers:
            worker.close()


def load(model: ModelConfig) -> TrtEngine:
    """Open a plan, or build one, and set it up on every GPU.

    Raises:
        WrongSetting: the model can't be served as it is.
        CannotStart: TensorRT, CUDA, a GPU, or memory on it is missing.
    """
    bindings, gpus = find_bindings(), cuda.start()
    bindings.module.init_libnvinfer_plugins(bindings.logger, "")
    plan = _plan(model)
    try:
        workers = _workers(model, plan, bindings, gpus)
    except faults.PlanRefused as refusal:
        # A kept plan that this GPU does not take is built again, once; what the user gave is told to be wrong.
        if not discard(plan):
            raise
        log.warning("model %s: the kept plan is of no use here and is built again: %s", model.name, refusal)
        workers = _workers(model, _plan(model), bindings, gpus)
    return TrtEngine(workers)


def _plan(model: ModelConfig) -> Plan:
    return plan_for(Path(model.path), options_of(model), progress=_LogProgress(model.name))


def _workers(model: ModelConfig, plan: Plan, bindings: Bindings, gpus: int) -> list[Worker]:
    workers: list[Worker] = []
    try:
        for gpu in range(gpus):
            first = None
            for _ in range(model.instances):
                workers.append(Worker(gpu, partial(_pipeline, model, plan, bindings, first)))
                first = first or workers[-1]
    except BaseException:
        for worker in workers:
            worker.close()
        raise
    return workers


def _pipeline(model: ModelConfig, plan: Plan, bindings: Bindings, first: Worker | None) -> Pipeline:
    """An instance, in its thread. It shares the weights with the first one on its GPU."""
    title = f"`{model.path}`"
    with faults.translated(bindings, title):
        engine = first.pipeline.engine if first else faults.deserialized(bindings, plan, title)
        return Pipeline(
            bindings.module,
            engine,
            signature_of(bindings.module, engine, title),
            title=title,
            max_batch=model.max_batch,
            warmup=model.warmup,
            has_graphs=os.environ.get(GRAPHS, "1") != "0",
            errors=bindings.errors,
        )


class _LogProgress:
    """A build at start, told in the log: each step, and every tenth of each."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tenths = -1

    def say(self, text: str) -> None:
        """A step."""
        log.info("model %s: %s", self._name, text)

    def moving(self, phase: str, share: float) -> None:
        """How far it is."""
        if int(share * 10) > self._tenths:
            self._tenths = int(share * 10)
            log.info("model %s: building, %d %%, %s", self._name, self._tenths * 10, phase)


def _under_way(worker: Worker) -> int:
    return worker.under_way
