"""What every peer's server is given: the model file, the port, the form of the bodies. Read from the environment."""

import os
from pathlib import Path

import numpy as np
import onnxruntime

BATCH_MAX = 32
BATCH_WAIT_MS = 2

MODEL = Path(os.environ["BENCHMARK_MODEL"])
MODEL_NAME = MODEL.stem
PORT = int(os.environ["BENCHMARK_PORT"])
FORM = os.environ["BENCHMARK_FORM"]  # json or binary
QUEUE_MAX = int(os.environ["BENCHMARK_QUEUE_MAX"])  # requests; for peers that have a limit
ROW_SHAPE = tuple(int(size) for size in os.environ["BENCHMARK_ROW_SHAPE"].split(","))

INPUT, OUTPUT, OUTPUT_SIZE = "x", "y", 10


def session() -> onnxruntime.InferenceSession:
    """The model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])


def run(opened: onnxruntime.InferenceSession, rows: np.ndarray) -> np.ndarray:
    """One batch: rows × 10 scores."""
    return opened.run([OUTPUT], {INPUT: rows})[0]


def row_of(body: bytes) -> np.ndarray:
    """A binary body: one row, little-endian float32."""
    return np.frombuffer(body, dtype="<f4").reshape(ROW_SHAPE)
