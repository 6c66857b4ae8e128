"""What Nomad itself does in the moments that `NomadApi` has to know of, on the shared cluster."""

import time
from collections.abc import Iterator

import pytest

from nomadserve.nomad_api import Job, NomadApi
from tests.integration.conftest import RunningCluster
from tests.integration.test_scaling import wait_for

JOB_ID = "starting"
HCL = """
job "starting" {
  group "sleep" {
    count = 1
    update {
      min_healthy_time = "1s"
      healthy_deadline = "2m"
    }
    scaling {
      max = 10
    }
    task "sleep" {
      driver = "raw_exec"
      config {
        command = "/bin/sleep"
        args    = ["86399"]
      }
      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
"""


@pytest.fixture
def nomad(cluster: RunningCluster) -> Iterator[NomadApi]:
    nomad = NomadApi(cluster.nomad)
    yield nomad
    nomad.deregister(JOB_ID)
    nomad.close()


def deployed(nomad: NomadApi, job: Job) -> bool:
    """Whether the deployment of the job's newest revision has ended well."""
    current, deployment = nomad.job(JOB_ID), nomad.latest_deployment(JOB_ID)
    assert current is not None
    return (
        deployment is not None
        and deployment["JobVersion"] == current["Version"]
        and deployment["Status"] == "successful"
        and deployment["TaskGroups"]["sleep"]["HealthyAllocs"] == job["TaskGroups"][0]["Count"]
    )


def changed(nomad: NomadApi, *, count: int, most: int) -> Job:
    """The job as it is, with other numbers; registered."""
    job = nomad.job(JOB_ID)
    assert job is not None
    [group] = job["TaskGroups"]
    group |= {"Count": count, "Scaling": group["Scaling"] | {"Max": most}}
    nomad.register(job, source="", modify_index=job["JobModifyIndex"], preserve_counts=False)
    return job


@pytest.mark.parametrize("moment_s", [0.2, 0.3, 0.4])
def test_a_revision_that_meets_a_starting_replica_is_deployed_all_the_same(nomad: NomadApi, moment_s: float) -> None:
    first = nomad.parse(HCL)
    nomad.register(first, source=HCL, modify_index=0, preserve_counts=False)
    wait_for(lambda: deployed(nomad, first))
    changed(nomad, count=2, most=10)
    time.sleep(moment_s)
    second = changed(nomad, count=2, most=11)
    wait_for(lambda: deployed(nomad, second))
