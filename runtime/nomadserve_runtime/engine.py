"""The contract between the batcher and what computes: one small protocol, one file per engine in `engines/`."""

import importlib
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from nomadserve_runtime import policy
from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.slots import Slot
from nomadserve_runtime.tensors import TEXT, Profile, RowShapes, TensorSpec, largest

# Of the memory of a model's slots, so much is there from the start.
TOUCHED_NBYTES_MAX = 256 * 1024 * 1024
PAGE_NBYTES = 4096

# Name in the configuration → module in `engines/`, whose `load` opens the file of a model.
MODULES = {"onnxruntime": "ort", "tensorrt": "trt.engine", "fake": "fake"}


class Engine(Protocol):
    """A loaded model. Called from one thread at a time, and from one only once it serves.

    Attributes:
        platform: what the Open Inference Protocol calls this kind of model.
        inputs: in the order of the model, which is the order of `Slot.inputs`.
        outputs: the same for the outputs.
        batch_max: rows of the largest batch it runs.
        parallel: how many batches it computes at the same time.
        profiles: the row shapes that it takes, where they may differ from request to request; else none.
        output_shapes_max: row shapes of the largest outputs, where they may differ; empty where nobody knows: then it
            puts arrays of its own into `Slot.outputs`.
    """

    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch_max: int
    parallel: int
    profiles: tuple[Profile, ...]
    output_shapes_max: RowShapes

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Host memory that this engine reads and writes fastest; its content is arbitrary."""
        ...

    def run(self, slot: Slot, rows: int) -> None:
        """Compute rows [0, rows) of `slot.inputs` into the same rows of `slot.outputs`. Blocks until written.

        Where row shapes may differ, all rows of a batch have the same, and the arrays have just these; where those of
        the outputs may, the engine lays them out (`Slot.shape_outputs`) or replaces `Slot.outputs`.
        May change input rows from `rows` on, to pad. Whatever it raises fails this batch only, but for `EngineLost`.
        """
        ...

    def run_rows(self, rows: int) -> int:
        """How many rows a batch of `rows` is padded to."""
        ...

    def known_seconds(self, rows: int) -> float | None:
        """How long a batch takes, where that is known without trying; None where calibration has to time it."""
        ...

    def close(self) -> None:
        """Give back what the model holds; nothing is called after it."""
        ...


@runtime_checkable
class AheadEngine(Engine, Protocol):
    """An engine with threads of its own, that takes a batch while it computes another.

    Attributes:
        graph_failures: batch sizes that it can launch only kernel by kernel.
    """

    graph_failures: int

    def start(self, slot: Slot, rows: int, done: Callable[[Exception | None], None]) -> None:
        """As `run`, but returns at once. It notes the times of the batch in the slot, then calls `done`, in any thread.

        `done` is told what `run` would have raised, or None. At most 2 × `parallel` batches are with it at a time.
        """
        ...


def open_engine(model: ModelConfig) -> Engine:
    """Load the model file with its engine, which is imported only here.

    A model with a fixed batch size has its own in the place of `max_batch`.

    Raises:
        WrongSetting: the file is missing, corrupt, or of a kind that the engine can't serve.
        CannotStart: the engine itself is not there.
    """
    module = importlib.import_module(f"nomadserve_runtime.engines.{MODULES[model.engine]}")
    engine: Engine = module.load(model)
    return engine


def slots_for(engine: Engine, *, rows_max: int) -> list[Slot]:
    """As many slots, in the memory of the engine, as make `rows_max` an exact limit of the queue."""
    kinds = policy.SHAPES_MAX if engine.profiles else 1
    count = policy.slots_needed(rows_max=rows_max, capacity=engine.batch_max, parallel=engine.parallel, kinds=kinds)
    return [slot_for(engine) for _ in range(count)]


def touch(slots: Sequence[Slot]) -> None:
    """Have the system bring the memory of those that are taken first, the last ones, up to a limit. Takes a while.

    Otherwise whoever is served when the queue fills for the first time pays for it: 0.2 s, for 200 MB of images.
    """
    nbytes = 0
    for slot in reversed(slots):
        for array in slot.inputs:
            if array.dtype != TEXT and nbytes < TOUCHED_NBYTES_MAX:
                nbytes += array.nbytes
                array.reshape(-1).view(np.uint8)[::PAGE_NBYTES] = 0


def slot_for(engine: Engine) -> Slot:
    """A slot for the largest batch, in the memory of the engine."""
    return Slot(
        inputs=engine.inputs,
        outputs=engine.outputs,
        capacity=engine.batch_max,
        host_array=engine.host_array,
        input_shapes_max=largest(engine.inputs, engine.profiles) if engine.profiles else (),
        output_shapes_max=engine.output_shapes_max,
    )
