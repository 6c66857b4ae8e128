"""Are the answers right? Held against ONNX Runtime on the CPU, by what each precision can give."""

from dataclasses import dataclass

import numpy as np
import onnxruntime

from benchmarks.gpu.networks import Network
from nomadserve_runtime.engine import Engine, slot_for

# The largest difference that is allowed, as a share of the spread of the right answers. A product of many terms in a
# format with m bits of mantissa is off by about 2**-m; the networks have some fifty layers.
TOLERANCES = {"fp32": 1e-3, "tf32": 2e-2, "fp16": 3e-2, "bf16": 2e-1}


@dataclass(frozen=True)
class Difference:
    """How far the engine's answers are from the right ones, at most, in standard deviations of those."""

    found: float
    allowed: float

    @property
    def is_right(self) -> bool:
        """Whether that is little enough."""
        return self.found <= self.allowed


def right_answers(network: Network, *, rows: int) -> np.ndarray:
    """What ONNX Runtime answers to the first rows."""
    session = onnxruntime.InferenceSession(str(network.path), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    feeds = {name: array[:rows] for name, array in zip(names, network.rows, strict=True)}
    answers: np.ndarray = session.run(None, feeds)[0]
    return answers


def compare(engine: Engine, network: Network, *, precision: str, right: np.ndarray) -> Difference:
    """Run the rows of the right answers in batches of every size up to their number."""
    slot = slot_for(engine)
    worst = 0.0
    for rows in range(1, min(len(right), engine.batch_max) + 1):
        for array, source in zip(slot.inputs, network.rows, strict=True):
            array[:rows] = source[:rows]
        engine.run(slot, rows)
        found = slot.outputs[0][:rows].astype(np.float64)
        worst = max(worst, float(np.abs(found - right[:rows]).max() / right.std()))
    return Difference(worst, TOLERANCES[precision])
