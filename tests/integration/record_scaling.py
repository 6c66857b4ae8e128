"""Record what the real autoscaler does under a trace, for the unit test that holds the simulation against it.

Run it by hand, on a local cluster of its own; it takes six minutes. The first number is the milliseconds that a replica
needs for one request: with 40 the replicas have room to spare, with 100 they are overloaded until new ones come.

    nomadserve dev up --name recording && eval "$(nomadserve dev env --name recording)"
    python -m tests.integration.record_scaling 40 tests/unit/operations/simulate/recordings/spare.json
    python -m tests.integration.record_scaling 100 tests/unit/operations/simulate/recordings/overload.json
    nomadserve dev down --name recording
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from nomadserve.consul_api import ConsulApi
from nomadserve.operations.load import Aim, Load, LoadProcess, Outcome
from nomadserve.prometheus_api import PrometheusApi
from nomadserve.promql import PROMETHEUS

NAME = "recorded"
JOB = f"{NAME}-v1"
MODEL = '{"inputs": [{"name": "x", "shape": [1]}], "outputs": [{"name": "y", "shape": [1]}], "delay_ms": %d}'
SERVICE = f"""
service "{NAME}" {{
  model "slow" {{
    source    = "slow.json"
    engine    = "fake"
    max_batch = 1
  }}
  queue {{
    max = 40
  }}
  scaling {{
    min                  = 1
    max                  = 6
    evaluation_interval  = "5s"
    cooldown             = "40s"
    cooldown_on_scale_up = "10s"
    max_scale_down       = 2
    target "requests_per_second" {{
      value  = 8
      window = "15s"
    }}
  }}
}}
"""
# (seconds, requests/s): a step up, another, a dip that is shorter than the cooldown, a long fall.
TRACE = [(0, 4), (30, 21), (100, 37), (150, 12), (170, 37), (200, 5), (330, 0)]
SECONDS = 340.0
POLL_EVERY_S = 0.25


def main(delay_ms: int, file: Path) -> None:
    """Deploy, load, watch, write, take down."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "slow.json").write_text(MODEL % delay_ms)
        service_file = Path(folder) / "service.hcl.j2"
        service_file.write_text(SERVICE)
        nomadserve("up", str(service_file))
        try:
            time.sleep(20)  # the first deployment ends, and Prometheus finds the replica
            recording = record(delay_ms)
        finally:
            nomadserve("down", NAME)
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in recording.items())
    file.write_text(f"{{\n{lines}\n}}\n")


def record(delay_ms: int) -> dict[str, Any]:
    """Send the trace through the gateway, and note every change of what Nomad has."""
    seen: list[dict[str, Any]] = []
    is_over = threading.Event()
    started_at = time.time()
    watcher = threading.Thread(target=watch, args=(started_at, seen, is_over))
    watcher.start()
    outcomes = send()
    is_over.set()
    watcher.join()
    return {
        "service": SERVICE,
        "model": MODEL % delay_ms,
        "capacity": 1000 / delay_ms,  # one row at a time
        "trace": TRACE,
        "seconds": SECONDS,
        "changes": changes(started_at),
        "seen": seen,
        "measured": measured(started_at),
        "loads": [{"rate": o.rate, "ok": o.ok, "refused": o.refused, "failed": o.failures} for o in outcomes],
    }


def send() -> list[Outcome]:
    """The whole trace, by the clock."""
    gateway = urlsplit(os.environ["NOMADSERVE_GATEWAY"])
    assert gateway.hostname is not None
    assert gateway.port is not None
    aim = Aim(
        address=gateway.hostname,
        port=gateway.port,
        host=f"{NAME}.service.consul",
        path="/v1/inference",
        bodies=('{"inputs": {"x": [[1]]}}',),
    )
    ends = [at for at, _ in TRACE[1:]] + [SECONDS]
    outcomes = []
    with LoadProcess(aim) as load_process:
        for (at, rate), end in zip(TRACE, ends, strict=True):
            *_, last = load_process.run(Load(rate=rate, seconds=end - at, timeout_s=20, drain=False))
            assert isinstance(last, Outcome)
            outcomes.append(last)
            print(f"{end:g} s: {rate} requests/s, {last.ok} answered, {last.refused} refused", flush=True)
    return outcomes


def watch(started_at: float, seen: list[dict[str, Any]], is_over: threading.Event) -> None:
    """Poll Nomad's own counts; keep what changed."""
    last: tuple[int, ...] = ()
    while not is_over.wait(POLL_EVERY_S):
        group = scale_status()["TaskGroups"]["serve"]
        now = (group["Desired"], group["Running"], group["Healthy"])
        if now != last:
            last = now
            at = round(time.time() - started_at, 2)
            seen.append({"at_s": at, "desired": now[0], "running": now[1], "healthy": now[2]})
            print(seen[-1], flush=True)


def changes(started_at: float) -> list[dict[str, Any]]:
    """Nomad's scaling events that changed the count."""
    events = scale_status()["TaskGroups"]["serve"]["Events"] or []
    found = [
        {"at_s": round(event["Time"] / 1e9 - started_at, 2), "before": event["PreviousCount"], "after": event["Count"]}
        for event in events
        if event["Count"] is not None and event["Count"] != event["PreviousCount"]
    ]
    return sorted(found, key=lambda change: float(change["at_s"]))


def measured(started_at: float) -> list[tuple[float, float]]:
    """The load as the policy's own query sees it, every five seconds."""
    with contextlib.closing(ConsulApi.from_environment()) as consul:
        instance = consul.instances(PROMETHEUS)[0]
    query = f'sum(rate(nomadserve_requests_total{{service="{NAME}",version="v1",outcome!="invalid"}}[15s]))'
    prometheus = PrometheusApi(f"http://{instance.address}:{instance.port}")
    found = prometheus.history(query, start=started_at, end=started_at + SECONDS, step_s=5)
    return [(round(at - started_at, 2), round(value, 3)) for at, value in found]


def scale_status() -> dict[str, Any]:
    """`GET /v1/job/JOB/scale`."""
    status: dict[str, Any] = requests.get(f"{os.environ['NOMAD_ADDR']}/v1/job/{JOB}/scale", timeout=30).json()
    return status


def nomadserve(*arguments: str) -> None:
    """Run the command line of this environment."""
    subprocess.run([Path(sys.executable).parent / "nomadserve", *arguments], check=True, timeout=300)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
