"""The contract between the batcher and what computes: one small protocol, one file per engine in `engines/`."""

import importlib
from pathlib import Path
from typing import Protocol

import numpy as np

from nomadserve_runtime.errors import WrongSetting
from nomadserve_runtime.slots import Slot
from nomadserve_runtime.tensors import TensorSpec

# Name in the configuration → module in `engines/`, whose `load` opens a model file.
MODULES = {"onnxruntime": "ort", "fake": "fake"}


class Engine(Protocol):
    """A loaded model. Called from one thread at a time, and from one only once it serves.

    Attributes:
        platform: what the Open Inference Protocol calls this kind of model.
        inputs: in the order of the model, which is the order of `Slot.inputs`.
        outputs: the same for the outputs.
        batch_max: rows of the largest batch it runs.
    """

    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch_max: int

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Host memory that this engine reads and writes fastest; its content is arbitrary."""
        ...

    def run(self, slot: Slot, rows: int) -> None:
        """Compute rows [0, rows) of `slot.inputs` into the same rows of `slot.outputs`. Blocks until written.

        May change input rows from `rows` on, to pad. Whatever it raises fails this batch only.
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


def open_engine(name: str, path: Path, *, batch_max: int, threads: int) -> Engine:
    """Load the model file at `path` with the engine called `name`, which is imported only here.

    batch_max: rows of the largest batch wanted; a model with a fixed batch size has its own.
    threads: for one batch; 0 leaves the choice to the engine.

    Raises:
        WrongSetting: the file is missing, corrupt, or of a kind that the engine can't serve.
        CannotStart: the engine itself is not there.
    """
    if name not in MODULES:
        raise WrongSetting(
            f"the engine `{name}` is not there yet", hint=f"engines of this release: {', '.join(MODULES)}"
        )
    module = importlib.import_module(f"nomadserve_runtime.engines.{MODULES[name]}")
    engine: Engine = module.load(path, batch_max=batch_max, threads=threads)
    return engine
