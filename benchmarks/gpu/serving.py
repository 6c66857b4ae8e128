"""The whole server: `nomadserve serve` in a process of its own, with clients that send binary bodies."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.gpu.load import load

# A server that builds its plan first takes its time.
READY_WITHIN_S = 1800.0


@dataclass(frozen=True)
class Served:
    """What clients got.

    Attributes:
        cpu_us: user and system time of the server for each request.
        batch_rows: rows of a batch, the mean.
    """

    rows_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    batch_rows: float
    failed: int


class Server:
    """A running one."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process = process
        self.port = port

    def measure(self, request: bytes, *, rows: int, connections: int, processes: int, seconds: float) -> Served:
        """Load it with requests of so many rows."""
        usage, before = psutil.Process(self.process.pid), self._batches()
        cpu_before, began_at = sum(usage.cpu_times()[:2]), time.monotonic()
        answers = load(self.port, request, connections=connections, processes=processes, seconds=seconds)
        cpu_s, took_s = sum(usage.cpu_times()[:2]) - cpu_before, time.monotonic() - began_at
        batches, batch_rows = (now - then for now, then in zip(self._batches(), before, strict=True))
        times = np.array(answers.times_s or [np.nan])
        # Processor time is of the warm-up too, so it is spread over all that was answered.
        requests = max(1.0, batch_rows / rows)
        assert took_s > 0
        return Served(
            len(answers.times_s) * rows / answers.seconds,
            float(np.percentile(times, 50)) * 1e3,
            float(np.percentile(times, 99)) * 1e3,
            cpu_s / requests * 1e6,
            batch_rows / max(1.0, batches),
            answers.failed,
        )

    def input_names(self, model: str) -> list[str]:
        """As the server itself calls them."""
        return [tensor["name"] for tensor in json.loads(self._get(f"/v2/models/{model}"))["inputs"]]

    def is_ready(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._get("/v2/health/ready")
            return True
        return False

    def _batches(self) -> tuple[float, float]:
        """How many batches, and rows in them, since the start."""
        values = dict(
            line.partition("{")[::2]
            for line in self._get("/metrics").decode().splitlines()
            if line.startswith("nomadserve_batch_rows_")
        )
        return tuple(float(values[f"nomadserve_batch_rows_{word}"].rsplit(" ", 1)[1]) for word in ("count", "sum"))  # type: ignore[return-value]

    def _get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise OSError(f"{path}: {response.status}")
            return body


@contextlib.contextmanager
def serving(command: Sequence[str], *, log: Path, **environ: str) -> Iterator[Server]:
    """Start the command, wait until it is ready, and end it whatever happens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)], env={**os.environ, **environ}, stdout=output, stderr=output
        )
    server = Server(process, port)
    try:
        give_up_at = time.monotonic() + READY_WITHIN_S
        while not server.is_ready():
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(f"the server does not get ready: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
