from typing import Any

import pytest

from nomadserve.operations import fit

A100 = {
    "Vendor": "nvidia",
    "Type": "gpu",
    "Name": "NVIDIA A100-SXM4-80GB",
    "Instances": [{"ID": "GPU-1", "Healthy": True}, {"ID": "GPU-2", "Healthy": True}],
    "Attributes": {"memory": {"Int": 81920, "Unit": "MiB"}, "driver_version": {"String": "550.54.15"}},
}


def node(*devices: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "ID": "1",
        "Name": "node-1",
        "Status": "ready",
        "SchedulingEligibility": "eligible",
        "NodePool": "default",
        "Datacenter": "dc1",
        "Drivers": {"raw_exec": {"Healthy": True}},
        "NodeResources": {
            "Cpu": {"CpuShares": 4000, "ReservableCpuCores": [0, 1]},
            "Memory": {"MemoryMB": 8000},
            "Devices": list(devices),
        },
        "ReservedResources": {"Cpu": {"CpuShares": 0}, "Memory": {"MemoryMB": 0}},
    } | changes


def gpu(*constraints: tuple[str, str, str], count: int = 1, name: str = "nvidia/gpu") -> dict[str, Any]:
    asked = [{"LTarget": target, "Operand": operand, "RTarget": value} for target, operand, value in constraints]
    return {"Name": name, "Count": count, "Constraints": asked}


def job(*devices: dict[str, Any], **resources: Any) -> dict[str, Any]:
    asked = {"CPU": 100, "MemoryMB": 100, "Devices": list(devices)} | resources
    task = {"Driver": "raw_exec", "Resources": asked}
    return {"NodePool": "default", "Datacenters": ["dc*"], "TaskGroups": [{"Tasks": [task]}]}


def holding(*device_ids: str, status: str = "running", memory: int = 0) -> dict[str, Any]:
    device = {"Vendor": "nvidia", "Type": "gpu", "Name": A100["Name"], "DeviceIDs": list(device_ids)}
    task = {"Cpu": {"CpuShares": 0}, "Memory": {"MemoryMB": memory}, "Devices": [device] if device_ids else []}
    return {"JobID": "my-api-v1", "ClientStatus": status, "AllocatedResources": {"Tasks": {"serve": task}}}


def verdict(asked: dict[str, Any], on: dict[str, Any], *allocations: dict[str, Any]) -> str:
    (only,) = fit.verdicts(asked, {"1": (on, allocations)})
    return str(only)


MEMORY = "${device.attr.memory}"


def test_node_with_a_large_enough_gpu_fits() -> None:
    assert verdict(job(gpu((MEMORY, ">=", "40 GiB"))), node(A100)) == "node-1: fits"


def test_too_little_gpu_memory_is_named_with_both_figures() -> None:
    assert verdict(job(gpu((MEMORY, ">=", "100 GiB"))), node(A100)) == (
        "node-1: 2× NVIDIA A100-SXM4-80GB: memory is 80 GiB, >= 100 GiB asked for"
    )


def test_node_without_the_device_says_so() -> None:
    assert verdict(job(gpu()), node()) == "node-1: has no `nvidia/gpu`"


def test_taken_gpus_are_named_with_who_took_them() -> None:
    assert verdict(job(gpu()), node(A100), holding("GPU-1", "GPU-2")) == (
        "node-1: 2× NVIDIA A100-SXM4-80GB: fits, but 0 of 2 healthy ones are free (in use by `my-api-v1`), 1 asked for"
    )


def test_ended_allocations_hold_nothing() -> None:
    assert verdict(job(gpu()), node(A100), holding("GPU-1", "GPU-2", status="complete")) == "node-1: fits"


def test_unhealthy_gpus_do_not_count() -> None:
    sick = A100 | {"Instances": [{"ID": "GPU-1", "Healthy": False}]}
    assert "0 of 0 healthy ones are free, 1 asked for" in verdict(job(gpu()), node(sick))


@pytest.mark.parametrize(
    ("target", "operand", "value", "fits"),
    [
        ("${device.model}", "regexp", "A100|H100", True),
        ("${device.model}", "regexp", "^L4$", False),
        ("${device.attr.driver_version}", "version", ">= 550", True),
        ("${device.attr.driver_version}", "version", ">= 550.54, < 551", True),
        ("${device.attr.driver_version}", "version", ">= 560", False),
        ("${device.attr.driver_version}", "version", "~> 550.0", True),
        ("${device.attr.driver_version}", "version", "~> 550.60", False),
        ("${device.attr.driver_version}", "version", ">= 550.54.15.0", True),
        (MEMORY, "=", "80 GiB", True),
        (MEMORY, "<", "80 GiB", False),
        ("${device.attr.bar1}", ">=", "1 GiB", False),
    ],
)
def test_constraints_are_judged_as_the_scheduler_does(target: str, operand: str, value: str, fits: bool) -> None:
    assert (verdict(job(gpu((target, operand, value))), node(A100)) == "node-1: fits") is fits


@pytest.mark.parametrize("name", ["gpu", "nvidia/gpu", "nvidia/gpu/NVIDIA A100-SXM4-80GB"])
def test_a_device_is_found_by_each_form_of_its_name(name: str) -> None:
    assert verdict(job(gpu(name=name)), node(A100)) == "node-1: fits"


def test_one_fitting_group_is_enough() -> None:
    l4 = A100 | {"Name": "NVIDIA L4", "Attributes": {"memory": {"Int": 23034, "Unit": "MiB"}}}
    assert verdict(job(gpu((MEMORY, ">=", "40 GiB"))), node(l4, A100)) == "node-1: fits"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Status": "down"}, "is down"),
        ({"SchedulingEligibility": "ineligible"}, "takes no new work (drained or marked ineligible)"),
        ({"NodePool": "cpu"}, "is in node pool `cpu`, `default` is asked for"),
        ({"Datacenter": "lab"}, "is in datacenter `lab`, dc* is asked for"),
        ({"Drivers": {}}, "has no working `raw_exec` driver"),
    ],
)
def test_what_keeps_any_job_off_a_node_is_said(changes: dict[str, Any], reason: str) -> None:
    assert verdict(job(), node(**changes)) == f"node-1: {reason}"


def test_memory_in_use_is_subtracted() -> None:
    assert verdict(job(MemoryMB=5000), node(), holding(memory=4000)) == (
        "node-1: has 4000 MiB memory free, 5000 MiB is asked for"
    )


def test_whole_cores_that_are_not_free_are_said() -> None:
    assert verdict(job(Cores=3), node()) == "node-1: has 2 cores free, 3 are asked for"


def test_the_schedulers_own_words_stand_where_no_node_says_no() -> None:
    failed = {"serve": {"ConstraintFiltered": {"missing devices": 2}, "DimensionExhausted": {}, "NodesEvaluated": 2}}
    assert fit.scheduler_words(failed) == ["missing devices on 2 nodes"]
    assert fit.scheduler_words({}) == ["no node can take it"]


def test_cpu_asked_for_beyond_the_node_is_said() -> None:
    assert verdict(job(CPU=9000), node()) == "node-1: has 4000 MHz cpu free, 9000 MHz is asked for"


SPOT = ("${meta.nomadserve_spot}", "=", "true")
ON_DEMAND = ("${meta.nomadserve_spot}", "!=", "true")


def on_nodes(*constraints: tuple[str, str, str]) -> dict[str, Any]:
    """A job with one group for each constraint on nodes."""
    found = job()
    found["TaskGroups"] = [
        found["TaskGroups"][0]
        | {"Name": f"group-{number}", "Constraints": [{"LTarget": target, "Operand": operand, "RTarget": value}]}
        for number, (target, operand, value) in enumerate(constraints)
    ]
    return found


@pytest.mark.parametrize(
    ("constraint", "meta", "expected"),
    [
        (SPOT, {"nomadserve_spot": "true"}, "fits"),
        (SPOT, {"nomadserve_spot": "no"}, "is not a spot node: meta.nomadserve_spot is no, true asked for"),
        (SPOT, None, "is not a spot node: meta.nomadserve_spot is not set, true asked for"),
        (ON_DEMAND, None, "fits"),
        (
            ON_DEMAND,
            {"nomadserve_spot": "true"},
            "is a spot node (meta.nomadserve_spot is true), and these replicas never run on one",
        ),
        (("${attr.os.signals}", "set_contains", "SIGTERM"), None, "fits"),
    ],
)
def test_a_constraint_on_nodes_is_explained(
    constraint: tuple[str, str, str], meta: dict[str, str] | None, expected: str
) -> None:
    assert verdict(on_nodes(constraint), node(Meta=meta)) == f"node-1: {expected}"


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("attr.platform.aws.instance-life-cycle", "spot"),
        ("node.class", "cheap"),
        ("node.pool", "default"),
        ("node.unique.name", "node-1"),
        ("node.unknown", None),
        ("meta.unknown", None),
    ],
)
def test_what_a_node_is_known_by_is_read_as_nomad_reads_it(target: str, value: str | None) -> None:
    known = node(Attributes={"platform.aws.instance-life-cycle": "spot"}, NodeClass="cheap")
    assert fit.node_attribute(f"${{{target}}}", known) == value


def test_each_group_that_waits_is_explained_by_its_name() -> None:
    asked, nodes = on_nodes(SPOT, ON_DEMAND), {"1": (node(), ())}
    assert [str(each) for each in fit.verdicts(asked, nodes, groups={"group-0"})] == [
        "node-1, group group-0: is not a spot node: meta.nomadserve_spot is not set, true asked for"
    ]
    assert len(fit.verdicts(asked, nodes)) == 2
