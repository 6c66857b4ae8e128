"""GPU requests meet the real scheduler: nodes with fake devices take what fits, and a refusal says why."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.integration.gpu_plugin import FakeGpu, agent_configuration
from tests.integration.gpu_plugin import gpu_plugin_dir as gpu_plugin_dir  # a fixture, found in this module
from tests.integration.local_clusters import Cli, RunningCluster

A100 = FakeGpu(name="NVIDIA A100-SXM4-80GB", memory_mib=81920)
L4 = FakeGpu(name="NVIDIA L4", memory_mib=23034, count=2, driver_version="535.183.01")

MODEL = Path(__file__).resolve().parents[2] / "examples" / "digits" / "models" / "digits-v1.onnx"

WriteService = Callable[[str, str], str]


@pytest.fixture(scope="module")
def gpu_cluster(
    gpu_plugin_dir: Path,
    start_cluster: Callable[..., RunningCluster],
    tmp_path_factory: pytest.TempPathFactory,
) -> RunningCluster:
    """A local cluster whose one node has an A100 and two L4."""
    configuration = tmp_path_factory.mktemp("gpu") / "gpus.hcl"
    configuration.write_text(agent_configuration(gpu_plugin_dir, [A100, L4]))
    return start_cluster("gpu", "--nomad-config", str(configuration))


@pytest.fixture(scope="module")
def gpu_cli(bare_cli: Cli, gpu_cluster: RunningCluster) -> Cli:
    return Cli({**bare_cli.environment, **gpu_cluster.environment})


@pytest.fixture(scope="module")
def write_service(tmp_path_factory: pytest.TempPathFactory) -> WriteService:
    folder = tmp_path_factory.mktemp("services")

    def write(name: str, gpu: str) -> str:
        file = folder / f"{name}.hcl.j2"
        file.write_text(f"""service "{name}" {{
  model "digits" {{
    source = "{MODEL}"
    engine = "onnxruntime"
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
        return str(file)

    return write


@pytest.fixture(scope="module")
def large(gpu_cli: Cli, gpu_cluster: RunningCluster, write_service: WriteService) -> dict[str, Any]:
    """The allocation of a service that asks for at least 40 GiB, and so holds the only A100."""
    gpu_cli("up", write_service("large", 'memory = ">= 40 GiB"'))
    return only_allocation(gpu_cluster, "large-v1")


def nomad(cluster: RunningCluster, path: str) -> Any:
    reply = requests.get(f"{cluster.nomad}/v1/{path}", timeout=30)
    reply.raise_for_status()
    return reply.json()


def only_allocation(cluster: RunningCluster, job: str) -> dict[str, Any]:
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


def test_node_shows_the_fake_devices_like_the_vendors_plugin(gpu_cluster: RunningCluster) -> None:
    (stub,) = nomad(gpu_cluster, "nodes")
    groups = {group["Name"]: group for group in nomad(gpu_cluster, f"node/{stub['ID']}")["NodeResources"]["Devices"]}
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


def test_replica_shows_that_gpu_to_cuda_and_no_other(large: dict[str, Any], gpu_cluster: RunningCluster) -> None:
    _, ids = devices_of(large)
    log = requests.get(
        f"{gpu_cluster.nomad}/v1/client/fs/logs/{large['ID']}",
        params={"task": "serve", "type": "stderr", "plain": "true"},
        timeout=30,
    ).text
    assert f"CUDA sees the GPUs that this task was given: {ids[0]}" in log
    assert "no GPU metrics: the NVIDIA driver does not answer" in log  # it is made up


def test_count_gives_as_many_gpus(gpu_cli: Cli, gpu_cluster: RunningCluster, write_service: WriteService) -> None:
    gpu_cli("up", write_service("pair", 'count  = 2\n    memory = ">= 20 GiB"\n    model  = "L4"'))
    name, ids = devices_of(only_allocation(gpu_cluster, "pair-v1"))
    assert name == L4.name
    assert len(set(ids)) == 2


def test_too_large_a_request_exits_4_and_says_why_for_every_node(
    gpu_cli: Cli, gpu_cluster: RunningCluster, write_service: WriteService
) -> None:
    done = gpu_cli("up", write_service("huge", 'memory = ">= 100 GiB"'), check=False)
    assert done.returncode == 4, done.stderr
    assert "error: no node has room for `huge-v1`: 0 of 1 replicas placed" in done.stderr
    assert f"  nomadserve-{gpu_cluster.name}: " in done.stderr
    assert f"1× {A100.name}: memory is 80 GiB, >= 100 GiB asked for" in done.stderr
    assert f"2× {L4.name}: memory is 22.49 GiB, >= 100 GiB asked for" in done.stderr
    assert "hint: the job stays registered" in done.stderr


def test_gpu_in_use_is_named_with_its_user(gpu_cli: Cli, write_service: WriteService, large: dict[str, Any]) -> None:
    done = gpu_cli("up", write_service("second", 'memory = ">= 40 GiB"'), check=False)
    assert done.returncode == 4, done.stderr
    assert f"1× {A100.name}: fits, but 0 of 1 healthy ones are free (in use by `{large['JobID']}`)" in done.stderr


def test_plan_says_why_and_registers_nothing(
    gpu_cli: Cli, gpu_cluster: RunningCluster, write_service: WriteService
) -> None:
    done = gpu_cli("plan", write_service("planned", 'memory = ">= 100 GiB"'), check=False)
    assert done.returncode == 4, done.stderr
    assert f"1× {A100.name}: memory is 80 GiB, >= 100 GiB asked for" in done.stdout
    assert "planned-v1" not in [job["ID"] for job in nomad(gpu_cluster, "jobs")]
