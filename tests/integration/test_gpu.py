"""GPU requests meet the real scheduler: nodes with fake devices take what fits, and a refusal says why."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from gpu_plugin import FakeGpu, agent_configuration
from gpu_plugin import gpu_plugin_dir as gpu_plugin_dir  # a fixture: pytest finds it in this module

A100 = FakeGpu(name="NVIDIA A100-SXM4-80GB", memory_mib=81920)
L4 = FakeGpu(name="NVIDIA L4", memory_mib=23034, count=2, driver_version="535.183.01")

CLUSTER = f"test-gpu-{os.getpid()}"
NODE = f"nomadserve-{CLUSTER}"
MODEL = Path(__file__).resolve().parents[2] / "examples" / "digits" / "models" / "digits-v1.onnx"
COMMAND_SECONDS_MAX = 240

Environment = Mapping[str, str]
WriteService = Callable[[str, str], Path]


def nomadserve(*arguments: str | Path, environment: Environment | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("nomadserve"), *arguments],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )


def succeeded(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def cluster(gpu_plugin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """A local cluster whose one node has an A100 and two L4; the environment that points to it."""
    configuration = tmp_path_factory.mktemp("gpu") / "gpus.hcl"
    configuration.write_text(agent_configuration(gpu_plugin_dir, [A100, L4]))
    try:
        succeeded(nomadserve("dev", "up", "--name", CLUSTER, "--nomad-config", configuration))
        lines = succeeded(nomadserve("dev", "env", "--name", CLUSTER)).stdout.splitlines()
        yield dict(line.removeprefix("export ").split("=", 1) for line in lines)
    finally:
        succeeded(nomadserve("dev", "down", "--name", CLUSTER))


@pytest.fixture(scope="module")
def write_service(tmp_path_factory: pytest.TempPathFactory) -> WriteService:
    folder = tmp_path_factory.mktemp("services")

    def write(name: str, gpu: str) -> Path:
        file = folder / f"{name}.hcl.j2"
        file.write_text(f"""service "{name}" {{
  model "digits" {{
    source = "{MODEL}"
  }}
  resources {{
    cpu    = 100
    memory = "128 MiB"
  }}
  gpu {{
    {gpu}
  }}
}}
""")
        return file

    return write


@pytest.fixture(scope="module")
def large(cluster: Environment, write_service: WriteService) -> dict[str, Any]:
    """The allocation of a service that asks for at least 40 GiB, and so holds the only A100."""
    succeeded(nomadserve("up", write_service("large", 'memory = ">= 40 GiB"'), environment=cluster))
    return only_allocation(cluster, "large-v1")


def nomad(cluster: Environment, path: str) -> Any:
    reply = requests.get(f"{cluster['NOMAD_ADDR']}/v1/{path}", timeout=10)
    reply.raise_for_status()
    return reply.json()


def only_allocation(cluster: Environment, job: str) -> dict[str, Any]:
    (stub,) = [stub for stub in nomad(cluster, f"job/{job}/allocations") if stub["ClientStatus"] == "running"]
    allocation: dict[str, Any] = nomad(cluster, f"allocation/{stub['ID']}")
    return allocation


def devices_of(allocation: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The model and the ids of the devices that Nomad gave to the allocation."""
    (group,) = allocation["AllocatedResources"]["Tasks"]["serve"]["Devices"]
    return group["Name"], group["DeviceIDs"]


def environments_in(allocation: Mapping[str, Any]) -> list[dict[str, str]]:
    """The environments of all processes that the allocation's task runs."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:  # gone, or somebody else's
            continue
        if environment.get("NOMAD_ALLOC_ID") == allocation["ID"]:
            found.append(environment)
    return found


def test_node_shows_the_fake_devices_like_the_vendors_plugin(cluster: Environment) -> None:
    (stub,) = nomad(cluster, "nodes")
    groups = {group["Name"]: group for group in nomad(cluster, f"node/{stub['ID']}")["NodeResources"]["Devices"]}
    assert {(group["Vendor"], group["Type"]) for group in groups.values()} == {("nvidia", "gpu")}
    assert {name: len(group["Instances"]) for name, group in groups.items()} == {A100.name: 1, L4.name: 2}
    memory = groups[A100.name]["Attributes"]["memory"]
    assert (memory["Int"], memory["Unit"]) == (81920, "MiB")


def test_service_is_placed_on_the_gpu_that_has_the_memory(large: dict[str, Any]) -> None:
    name, ids = devices_of(large)
    assert name == A100.name
    assert len(ids) == 1


def test_task_learns_its_gpu_from_its_environment(large: dict[str, Any]) -> None:
    _, ids = devices_of(large)
    environments = environments_in(large)
    assert environments, "the task's process must be there"
    assert {environment["NVIDIA_VISIBLE_DEVICES"] for environment in environments} == {",".join(ids)}


def test_count_gives_as_many_gpus(cluster: Environment, write_service: WriteService) -> None:
    file = write_service("pair", 'count  = 2\n    memory = ">= 20 GiB"\n    model  = "L4"')
    succeeded(nomadserve("up", file, environment=cluster))
    name, ids = devices_of(only_allocation(cluster, "pair-v1"))
    assert name == L4.name
    assert len(set(ids)) == 2


def test_too_large_a_request_exits_4_and_says_why_for_every_node(
    cluster: Environment, write_service: WriteService
) -> None:
    done = nomadserve("up", write_service("huge", 'memory = ">= 100 GiB"'), environment=cluster)
    assert done.returncode == 4, done.stderr
    assert "error: no node has room for `huge-v1`: 0 of 1 replicas placed" in done.stderr
    assert f"1× {A100.name}: memory is 80 GiB, >= 100 GiB asked for" in done.stderr
    assert f"2× {L4.name}: memory is 22.49 GiB, >= 100 GiB asked for" in done.stderr
    assert f"  {NODE}: " in done.stderr
    assert "hint: the job stays registered" in done.stderr


def test_gpu_in_use_is_named_with_its_user(
    cluster: Environment, write_service: WriteService, large: dict[str, Any]
) -> None:
    done = nomadserve("up", write_service("second", 'memory = ">= 40 GiB"'), environment=cluster)
    assert done.returncode == 4, done.stderr
    assert f"1× {A100.name}: fits, but 0 of 1 healthy ones are free (in use by `{large['JobID']}`)" in done.stderr


def test_plan_says_why_before_anything_is_registered(cluster: Environment, write_service: WriteService) -> None:
    done = nomadserve("plan", write_service("planned", 'memory = ">= 100 GiB"'), environment=cluster)
    assert done.returncode == 4, done.stderr
    assert f"1× {A100.name}: memory is 80 GiB, >= 100 GiB asked for" in done.stdout
    assert "planned-v1" not in [job["ID"] for job in nomad(cluster, "jobs")]
