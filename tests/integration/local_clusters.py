"""What integration tests know of local clusters: how to run the command line, and where a started cluster is."""

import json
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from nomadserve.engines.local.ports import ports_at, taken

NOMADSERVE = Path(sys.executable).parent / "nomadserve"
COMMAND_TIMEOUT_S = 240


@dataclass(frozen=True)
class Cli:
    """Runs `nomadserve …` as a user would, in a process of its own."""

    environment: dict[str, str]
    folder: Path = field(default_factory=Path.cwd)

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [NOMADSERVE, *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"nomadserve {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it and do not wait."""
        return subprocess.Popen(
            [NOMADSERVE, *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def json(self, *arguments: str) -> object:
        """What it prints with `--json`."""
        return json.loads(self(*arguments, "--json").stdout)


@dataclass(frozen=True)
class RunningCluster:
    """Where a started cluster is."""

    name: str
    offset: int
    environment: dict[str, str]
    home: Path

    @property
    def nomad(self) -> str:
        return self.environment["NOMAD_ADDR"]

    @property
    def consul(self) -> str:
        return self.environment["CONSUL_HTTP_ADDR"]

    @property
    def consul_dns(self) -> tuple[str, int]:
        host, _, port = self.environment["CONSUL_DNS_ADDR"].partition(":")
        return host, int(port)

    @property
    def gateway(self) -> str:
        return self.environment["NOMADSERVE_GATEWAY"]


def environment_of(cli: Cli, name: str) -> dict[str, str]:
    """What `dev env` prints, as variables; without PATH, which only a shell can extend."""
    lines = cli("dev", "env", "--name", name).stdout.splitlines()
    variables = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    variables.pop("PATH", None)
    return variables


def home_of(state_home: Path, name: str) -> Path:
    """The folder of a cluster."""
    return state_home.resolve() / "nomadserve" / "clusters" / name


def free_offset(state_home: Path) -> int:
    """An offset at which nothing listens, nor is about to, away from those that `dev up` chooses by itself.

    Not every part of a cluster of this state folder may listen already, or at this moment: its ports are its own.
    """
    records = [json.loads(file.read_text()) for file in home_of(state_home, "any").parent.glob("*/cluster.json")]
    reserved = {port for record in records for port in record["ports"].values()}
    offsets = list(range(300, 1000, 10))
    random.shuffle(offsets)
    ports = {offset: ports_at(offset).all() for offset in offsets}
    return next(offset for offset in offsets if reserved.isdisjoint(ports[offset]) and not taken(ports[offset]))
