"""`max_total` on a real Nomad and Autoscaler: two versions under more load than the ceiling has replicas for."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.integration.conftest import Cli, RunningCluster
from tests.integration.test_scaling import MODEL, Load, stays, wait_for

CEILING = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ceiling")
    (folder / "slow.json").write_text(MODEL)
    return folder


def service_file(folder: Path, version: str, *, least: int = 1) -> str:
    path = folder / f"capped-{version}.hcl.j2"
    path.write_text(
        f"""service "capped" {{
  version = "{version}"
  model "slow" {{
    source    = "slow.json"
    engine    = "fake"
    max_batch = 1
  }}
  resources {{
    cpu    = 20
    memory = "100 MiB"
  }}
  queue {{
    max = 16
  }}
  scaling {{
    min                  = {least}
    max                  = {CEILING}
    max_total            = {CEILING}
    evaluation_interval  = "2s"
    cooldown             = "20s"
    cooldown_on_scale_up = "2s"
    target "requests_per_second" {{
      value  = 4
      window = "10s"
    }}
  }}
}}
"""
    )
    return str(path)


class Sampler:
    """Reads the wanted replicas of all versions, again and again, until it is stopped: each time of one moment."""

    def __init__(self, cluster: RunningCluster) -> None:
        self.seen: list[dict[str, int]] = []
        self._url = f"{cluster.nomad}/v1/jobs/statuses"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(0.05):
            jobs = requests.get(self._url, timeout=60).json()
            self.seen.append({job["ID"]: job["GroupCountSum"] for job in jobs if job["ID"].startswith("capped-")})


@pytest.fixture(scope="module")
def sampler(cluster: RunningCluster) -> Iterator[Sampler]:
    """Watches all that the tests of this module do; at the end, says what it saw, and holds it against the ceiling."""
    sampler = Sampler(cluster)
    yield sampler
    sampler.stop()
    sums = Counter(sum(counts.values()) for counts in sampler.seen)
    print(f"replicas of all versions together, and how often: {dict(sorted(sums.items()))}")
    assert max(sums) == CEILING


@pytest.fixture(scope="module")
def loaded(cli: Cli, cluster: RunningCluster, folder: Path, sampler: Sampler) -> Iterator[Load]:
    """Versions v1, with all the traffic, and v2; from now on they are asked for more than both may have."""
    for version in ("v1", "v2"):
        cli("up", service_file(folder, version))
    load = Load(cluster.gateway, "capped")
    yield load
    load.stop()
    cli("down", "capped", "--yes")


def counts(sampler: Sampler) -> dict[str, int]:
    return sampler.seen[-1]


def test_a_new_version_has_its_min_and_the_loaded_one_all_the_rest(loaded: Load, sampler: Sampler) -> None:
    wait_for(lambda: counts(sampler) == {"capped-v1": 3, "capped-v2": 1})


def test_a_version_that_does_not_fit_is_refused_before_anything_is_written(
    loaded: Load, cli: Cli, cluster: RunningCluster, folder: Path
) -> None:
    refused = cli("up", service_file(folder, "v3"), check=False)
    assert refused.returncode == 4
    assert "`max_total` (4) has no room for `capped-v3`, which needs 1: v1 has 3, v2 has 1" in refused.stderr
    assert requests.get(f"{cluster.nomad}/v1/job/capped-v3", timeout=30).status_code == 404
    hopeless = cli("up", service_file(folder, "v3", least=3), check=False)
    assert hopeless.returncode == 2
    assert "has no room for the least that the versions need: v1 1, v2 1, v3 3" in hopeless.stderr


def test_shares_move_with_the_traffic(loaded: Load, cli: Cli, sampler: Sampler) -> None:
    moved = cli("split", "capped", "v1=50", "v2=50").stderr
    assert "v1 may have 2 of 4 for all versions, not 3 replicas, and so 1 of 3 stop" in moved
    assert "v2 may have 2 of 4 for all versions, not 1 replica" in moved
    wait_for(lambda: counts(sampler) == {"capped-v1": 2, "capped-v2": 2})


def test_a_second_up_changes_nothing(loaded: Load, cli: Cli, folder: Path) -> None:
    assert "nothing to change" in cli("up", service_file(folder, "v2")).stderr
    assert "nothing to change" in cli("plan", service_file(folder, "v1")).stdout


def test_scale_first_stays_below_the_ceiling_and_a_version_that_goes_leaves_its_share(
    loaded: Load, cli: Cli, sampler: Sampler
) -> None:
    cli("split", "capped", "v1=0", "v2=100", "--scale-first")
    wait_for(lambda: counts(sampler) == {"capped-v1": 1, "capped-v2": 3})
    cli("down", "capped", "v1", "--yes")
    wait_for(lambda: counts(sampler) == {"capped-v2": 4})
    assert stays(lambda: counts(sampler) == {"capped-v2": 4}, seconds=3)
