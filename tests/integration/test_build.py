"""`nomadserve build --on-cluster`: a batch job on a node with the asked-for GPU; TensorRT-RTX builds for real in it."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.gpu_plugin import FakeGpu, agent_configuration
from tests.integration.gpu_plugin import gpu_plugin_dir as gpu_plugin_dir  # a fixture, found in this module
from tests.integration.local_clusters import NOMADSERVE, Cli, RunningCluster
from tests.signals import signals_heard
from tests.tensorrt_rtx import FOLDER, needs_rtx
from tests.unit.runtime.trt.models import write_deep, write_one, write_product

GOLDEN = Path(__file__).parents[1] / "unit" / "golden"
L4 = FakeGpu(name="NVIDIA L4", memory_mib=23034)

Write = Callable[..., str]


@pytest.fixture(scope="module")
def gpu_cluster(
    gpu_plugin_dir: Path, start_cluster: Callable[..., RunningCluster], tmp_path_factory: pytest.TempPathFactory
) -> RunningCluster:
    """A local cluster whose one node has an L4."""
    configuration = tmp_path_factory.mktemp("gpu") / "gpus.hcl"
    configuration.write_text(agent_configuration(gpu_plugin_dir, [L4]))
    return start_cluster("build", "--nomad-config", str(configuration))


@pytest.fixture(scope="module")
def cli(bare_cli: Cli, gpu_cluster: RunningCluster) -> Cli:
    return Cli({**bare_cli.environment, **gpu_cluster.environment})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a service file. Its tasks find TensorRT-RTX, unless `path` says otherwise."""

    def write(
        name: str,
        model: Path,
        *,
        gpu: str = ">= 8 GiB",
        memory: str = "1 GiB",
        path: str = str(FOLDER),
        more: str = "",
    ) -> str:
        file = tmp_path / f"{name}.hcl.j2"
        file.write_text(f"""service "{name}" {{
  engine_cache = "{tmp_path / "plans"}"

  env = {{
    PYTHONPATH = "{path}"
  }}

  model "product" {{
    source    = "{model}"
    max_batch = 8
    {more}
  }}

  resources {{
    cpu    = 100
    memory = "{memory}"
  }}

  gpu {{
    memory = "{gpu}"
  }}
}}
""")
        return str(file)

    return write


def nomad(cluster: RunningCluster, path: str) -> Any:
    reply = requests.get(f"{cluster.nomad}/v1/{path}", timeout=30)
    reply.raise_for_status()
    return reply.json()


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("tensorrt*.hcl")), ids=lambda path: path.name)
def test_nomad_takes_the_jobs_of_every_driver(golden: Path, gpu_cluster: RunningCluster) -> None:
    wanted = {"JobHCL": golden.read_text(encoding="utf-8"), "Canonicalize": True}
    parsed = requests.post(f"{gpu_cluster.nomad}/v1/jobs/parse", json=wanted, timeout=30)
    assert parsed.ok, parsed.text
    checked = requests.post(f"{gpu_cluster.nomad}/v1/validate/job", json={"Job": parsed.json()}, timeout=30).json()
    assert not checked["ValidationErrors"], checked


@needs_rtx
def test_plans_are_built_on_a_node_and_stay_there(
    cli: Cli, gpu_cluster: RunningCluster, write: Write, tmp_path: Path
) -> None:
    file = write("ahead", write_product(tmp_path / "m.onnx"), more='precision = "fp16"')
    done = cli("build", "--on-cluster", file)
    assert "nomad: job ahead-v1-build registered" in done.stderr
    assert f"on nomadserve-{gpu_cluster.name}: complete" in done.stderr
    assert "  | product: built in " in done.stderr
    (plan,) = (tmp_path / "plans").glob("*.plan")
    assert f"built on nomadserve-{gpu_cluster.name}: {plan}" in done.stderr
    assert json.loads((tmp_path / "plans" / f"{plan.name}.json").read_text())["precision"] == "fp16"
    assert "ahead-v1-build" not in [job["ID"] for job in nomad(gpu_cluster, "jobs")], "nothing else is left"

    again = cli("build", "--on-cluster", file, "--json")
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert any(event["event"] == "LogLine" and "was built already" in event["text"] for event in events)
    assert events[-1]["event"] == "Done"


@needs_rtx
def test_what_can_not_be_built_there_exits_1_with_what_the_builder_said(
    cli: Cli, gpu_cluster: RunningCluster, write: Write, tmp_path: Path
) -> None:
    model = write_one(tmp_path / "m.onnx", "Frobnicate", ["n", 8], domain="my.ops")
    done = cli("build", "--on-cluster", write("odd", model), check=False)
    assert done.returncode == 1, done.stderr
    assert "  |   `Frobnicate` (node `the_node`): no such operator" in done.stderr
    assert f"error: the plans could not be built on nomadserve-{gpu_cluster.name}" in done.stderr
    assert "hint: its log is above" in done.stderr
    assert "odd-v1-build" not in [job["ID"] for job in nomad(gpu_cluster, "jobs")]


def test_a_node_without_tensorrt_says_how_to_get_it(cli: Cli, write: Write, tmp_path: Path) -> None:
    done = cli("build", "--on-cluster", write("bare", write_product(tmp_path / "m.onnx"), path="/nowhere"), check=False)
    if "  | error: the engine `tensorrt` needs the package" not in done.stderr:
        pytest.skip("TensorRT is installed here")
    assert done.returncode == 1
    assert "  | hint: `pip install 'nomadserve[tensorrt]'`" in done.stderr


@needs_rtx
def test_a_task_with_too_little_memory_is_told_to_ask_for_more(cli: Cli, write: Write, tmp_path: Path) -> None:
    file = write("small", write_product(tmp_path / "m.onnx"), memory="64 MiB")
    done = cli("build", "--on-cluster", file, check=False)
    assert done.returncode == 1, done.stderr
    assert "hint: a task that is killed (signal 9) most likely needs more `memory` in `resources`" in done.stderr


def test_a_gpu_that_no_node_has_exits_4_and_says_why(
    cli: Cli, gpu_cluster: RunningCluster, write: Write, tmp_path: Path
) -> None:
    file = write("huge", write_product(tmp_path / "m.onnx"), gpu=">= 80 GiB")
    done = cli("build", "--on-cluster", file, check=False)
    assert done.returncode == 4, done.stderr
    assert "error: no node has room for `huge-v1-build`" in done.stderr
    assert f"1× {L4.name}: memory is 22.49 GiB, >= 80 GiB asked for" in done.stderr
    assert "huge-v1-build" not in [job["ID"] for job in nomad(gpu_cluster, "jobs")]


def test_a_deployment_that_builds_says_that_it_takes_its_time(cli: Cli, write: Write, tmp_path: Path) -> None:
    done = cli("up", "--detach", write("later", write_product(tmp_path / "m.onnx")))
    assert "TensorRT builds `product` on every node that keeps no plan of it yet: that takes minutes" in done.stderr
    cli("down", "later", "--yes")


def test_a_service_that_builds_nothing_is_refused(cli: Cli, write: Write, tmp_path: Path) -> None:
    file = write("none", write_product(tmp_path / "m.onnx"), more='engine = "onnxruntime"')
    done = cli("build", "--on-cluster", file, check=False)
    assert done.returncode == 2
    assert "error: no model of none is built" in done.stderr


@needs_rtx
def test_the_wait_that_ends_exits_3_and_the_build_goes_on(
    cli: Cli, gpu_cluster: RunningCluster, write: Write, tmp_path: Path
) -> None:
    # One that is built at once would be done sooner than anybody looks.
    file = write("slow", write_deep(tmp_path / "deep.onnx", layers=600))
    done = cli("build", "--on-cluster", file, "--timeout", "0.01", check=False)
    assert done.returncode == 3, done.stderr
    assert "has not built its plans yet; it goes on" in done.stderr
    assert "slow-v1-build" in [job["ID"] for job in nomad(gpu_cluster, "jobs")]
    requests.delete(f"{gpu_cluster.nomad}/v1/job/slow-v1-build?purge=true", timeout=30).raise_for_status()


@needs_rtx
def test_ctrl_c_stops_the_build_and_leaves_nothing(
    cli: Cli, gpu_cluster: RunningCluster, write: Write, tmp_path: Path
) -> None:
    file = write("long", write_deep(tmp_path / "deep.onnx", layers=600))
    with signals_heard():
        process = subprocess.Popen(
            [NOMADSERVE, "build", "--on-cluster", file],
            env=cli.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.stderr is not None
    try:
        assert any(": running" in line for line in process.stderr)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert "long-v1-build" not in [job["ID"] for job in nomad(gpu_cluster, "jobs")]
    assert not list((tmp_path / "plans").glob("*.plan"))
