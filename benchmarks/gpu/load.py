"""Clients that send binary bodies and wait for each answer: many connections in several processes, on plain sockets.

A client must cost less than the server: every body is made before, and of an answer only the head is looked at.
"""

import asyncio
import json
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from benchmarks.gpu.networks import Network
from nomadserve_runtime.tensors import DTYPES

WARM_UP_S = 1.0
DATATYPES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Answers:
    """What came back.

    Attributes:
        times_s: of each answered request, after the warm-up.
        seconds: how long was measured.
        failed: answers that were no 200.
    """

    times_s: tuple[float, ...]
    seconds: float
    failed: int


def request_of(network: Network, names: Sequence[str], *, model: str, rows: int) -> bytes:
    """A whole HTTP request with so many rows, its tensors in binary, asking for a binary answer."""
    tensors = [np.resize(array, (rows, *array.shape[1:])) for array in network.rows]
    head = {
        "inputs": [
            {
                "name": name,
                "shape": array.shape,
                "datatype": DATATYPES[array.dtype],
                "parameters": {"binary_data_size": array.nbytes},
            }
            for name, array in zip(names, tensors, strict=True)
        ],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(head).encode()
    body = b"".join([text, *(array.tobytes() for array in tensors)])
    lines = (
        f"POST /v2/models/{model}/infer HTTP/1.1",
        "host: benchmark",
        "content-type: application/octet-stream",
        f"inference-header-content-length: {len(text)}",
        f"content-length: {len(body)}",
    )
    return "\r\n".join([*lines, "", ""]).encode() + body


def load(port: int, request: bytes, *, connections: int, processes: int, seconds: float) -> Answers:
    """Send the request over so many connections, again as soon as it is answered."""
    shares = [connections // processes + (number < connections % processes) for number in range(processes)]
    # Fresh processes: a copy of this one would bring what it has of CUDA along.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        started = [pool.submit(_client, port, request, share, seconds) for share in shares if share]
        parts = [part.result() for part in started]
    return Answers(
        tuple(time_s for part in parts for time_s in part.times_s), seconds, sum(part.failed for part in parts)
    )


def _client(port: int, request: bytes, connections: int, seconds: float) -> Answers:
    return asyncio.run(_ask_all(port, request, connections, seconds))


async def _ask_all(port: int, request: bytes, connections: int, seconds: float) -> Answers:
    begin_at = time.monotonic() + WARM_UP_S
    parts = await asyncio.gather(*(_ask(port, request, begin_at, begin_at + seconds) for _ in range(connections)))
    times = tuple(time_s for times, _ in parts for time_s in times)
    return Answers(times, seconds, sum(failed for _, failed in parts))


async def _ask(port: int, request: bytes, begin_at: float, end_at: float) -> tuple[list[float], int]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    times, failed = [], 0
    while (sent_at := time.monotonic()) < end_at:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(_length(head))
        answered_at = time.monotonic()
        if not head.startswith(b"HTTP/1.1 200"):
            failed += 1
        elif begin_at <= answered_at < end_at:
            times.append(answered_at - sent_at)
    writer.close()
    return times, failed


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
