"""Closed-loop load by wrk: so many connections, each with one request under way at any time."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import children_cpu_s

SCRIPT = Path(__file__).with_name("post.lua")
REPLY_WITHIN_S = 30


class LoadFailed(Exception):
    """wrk could not do its work."""


@dataclass(frozen=True)
class Load:
    """What wrk saw.

    Attributes:
        answered: replies with 200 per second.
        refused: replies with another status per second.
        broken: connections that failed, and replies that never came.
        cpu_s: processor time of wrk itself.
    """

    answered: float
    refused: float
    broken: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_s: float


def run(*, port: int, requests: Sequence[Path], connections: int, seconds: float, core: int) -> Load:
    """Send the requests in these files in turn; wrk itself takes whole seconds only."""
    command = ["taskset", "--cpu-list", str(core), "wrk", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{max(1, round(seconds))}s", "--timeout", f"{REPLY_WITHIN_S}s", "--latency"]
    command += ["--script", str(SCRIPT), f"http://127.0.0.1:{port}/", "--", *map(str, requests)]
    cpu_before = children_cpu_s()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise LoadFailed((done.stderr or done.stdout).strip() or f"wrk ended with {done.returncode}")
    return _load(json.loads(lines[0].removeprefix("RESULT ")), cpu_s=children_cpu_s() - cpu_before)


def _load(result: dict[str, int], *, cpu_s: float) -> Load:
    seconds = result["duration_us"] / 1e6
    return Load(
        answered=(result["requests"] - result["refused"]) / seconds,
        refused=result["refused"] / seconds,
        broken=result["broken"] + result["timeouts"],
        p50_ms=result["p50_us"] / 1e3,
        p99_ms=result["p99_us"] / 1e3,
        max_ms=result["max_us"] / 1e3,
        cpu_s=cpu_s,
    )
