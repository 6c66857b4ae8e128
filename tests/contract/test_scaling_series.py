"""The series that scaling asks for are ones that the runtime has."""

import re
from pathlib import Path

import pytest

from nomadserve_runtime.gpu import GpuReading
from nomadserve_runtime.metrics import Series

GOLDEN = Path(__file__).parents[1] / "unit" / "golden"
# What the runtime does not have is somebody else's: Prometheus' own, and that of a golden file's own query.
FOREIGN = {"up", "jobs_waiting", "process_start_time_seconds"}


def printed() -> set[str]:
    series = Series()
    series.model("m")
    series.gpus = lambda: [GpuReading("GPU-1", 1, 2, 3, 4, 5)]
    return set(re.findall(r"^(\w+)", series.render().decode(), re.MULTILINE))


@pytest.mark.parametrize("name", ["scaling", "gpu_scaling", "cores"])
def test_every_series_of_a_policy_is_one_that_the_runtime_prints(name: str) -> None:
    queries = re.findall(r'query += "(.*)"', (GOLDEN / f"{name}.nomad.hcl").read_text())
    used = {series for query in queries for series in re.findall(r"(\w+)\{", query)} - FOREIGN
    assert used
    assert used <= printed()
