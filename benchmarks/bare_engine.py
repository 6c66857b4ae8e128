"""The limit from below: ONNX Runtime in a loop, without any server. Started on the server's core by `measure`."""

import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.models import INPUT, OUTPUT, open_session


def rows_per_s(path: Path, row_shape: tuple[int, ...], *, rows: int, seconds: float) -> float:
    """Rows per second in batches of so many rows."""
    session = open_session(path)
    batch = np.random.default_rng(0).standard_normal((rows, *row_shape), dtype=np.float32)
    for _ in range(3):
        session.run([OUTPUT], {INPUT: batch})
    count, started_at = 0, time.perf_counter()
    while time.perf_counter() - started_at < seconds:
        session.run([OUTPUT], {INPUT: batch})
        count += 1
    return count * rows / (time.perf_counter() - started_at)


if __name__ == "__main__":
    path, shape, rows, seconds = sys.argv[1:]
    print(rows_per_s(Path(path), tuple(map(int, shape.split(","))), rows=int(rows), seconds=float(seconds)))
