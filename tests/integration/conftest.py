"""A real cluster for the whole run, and the command line pointed at it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.local_clusters import NOMADSERVE as NOMADSERVE
from tests.integration.local_clusters import Cli, RunningCluster, environment_of, free_offset, home_of


@pytest.fixture(scope="session")
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder of this run's own: no cluster of the user is ever seen, or ended, from here."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def bare_cli(state_home: Path) -> Cli:
    """The command line with no cluster chosen."""
    foreign = ("NOMAD_", "CONSUL_", "NOMADSERVE_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    cli = Cli({**kept, "XDG_STATE_HOME": str(state_home), "NO_COLOR": "1"})
    engines = cli.json("engines", "list")
    assert isinstance(engines, list)
    missing = [row["name"] for row in engines if row["path"] is None]
    if missing:  # building them takes longer than any test may
        pytest.exit(f"{', '.join(missing)} not installed: run `nomadserve engines install --all` first", returncode=2)
    return cli


@pytest.fixture(scope="session")
def start_cluster(bare_cli: Cli, state_home: Path) -> Iterator[Callable[..., RunningCluster]]:
    """Starts clusters with names and ports of their own; whatever becomes of them, all are taken down at the end."""
    names: list[str] = []

    def start(label: str, *flags: str) -> RunningCluster:
        name, offset = f"{label}-{os.getpid()}", free_offset(state_home)
        names.append(name)
        bare_cli("dev", "up", "--name", name, "--port-offset", str(offset), *flags)
        return RunningCluster(name, offset, environment_of(bare_cli, name), home_of(state_home, name))

    yield start
    for name in names:
        bare_cli("dev", "down", "--name", name)


@pytest.fixture(scope="session")
def cluster(bare_cli: Cli, start_cluster: Callable[..., RunningCluster]) -> RunningCluster:
    """The cluster that most tests share; what scales is there too, for which `dev up` does not wait."""
    started = start_cluster("shared")
    Cli({**bare_cli.environment, **started.environment})("platform", "up")
    return started


@pytest.fixture(scope="session")
def cli(bare_cli: Cli, cluster: RunningCluster) -> Cli:
    """The command line, pointed at the shared cluster."""
    return Cli({**bare_cli.environment, **cluster.environment})
