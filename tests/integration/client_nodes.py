"""Further Nomad clients of a local cluster: each a node with a Consul agent of its own, as on real machines.

They live in a folder of the cluster and carry its mark, so `dev down` ends whatever is left of them.

    node = ClientNode(cluster, 0, "spot-a", meta={"nomadserve_spot": "true"})
    node.start(); node.kill(); node.start(); node.wait_until_ready()
"""

import json
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
import requests

from nomadserve.engines.local import processes
from nomadserve.engines.local.config import CLOUD_FINGERPRINTERS, LOOPBACK
from nomadserve.engines.local.ports import dynamic_range, ports_at, taken
from nomadserve.engines.local.record import MARK, Cluster, Home, is_inside
from tests.integration.local_clusters import RunningCluster

POOL = "workers"  # apart from the cluster's own node, which has the gateway's ports
READY_WITHIN_S = 120.0
# Below the ranges of local clusters' allocations, and no port of their own parts.
PORTS_FIRST, PORTS_END, PORTS_OF_AGENTS = 12000, 18000, 6
# Of the ports that the cluster's allocations may have; its own node runs none of these services, and so needs none.
PORTS_OF_ALLOCATIONS = 40


_given: set[int] = set()  # to nodes that may not listen on them yet


def free_ports() -> list[int]:
    """Ports for the agents of a node, which it keeps when it is started again."""
    found: list[int] = []
    while len(found) < PORTS_OF_AGENTS:
        port = random.randrange(PORTS_FIRST, PORTS_END)
        if port not in _given and not taken([port]):
            found.append(port)
            _given.add(port)
    return found


@dataclass(frozen=True)
class ClientNode:
    """One node. `number`, from 0 to 4, sets the ports of its allocations apart from those of the others."""

    cluster: RunningCluster
    number: int
    name: str
    meta: dict[str, str] = field(default_factory=dict)
    ports: list[int] = field(default_factory=free_ports)
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.cluster.home / "nodes" / self.name

    def start(self) -> None:
        """Start both agents, or start them again with the data they had; Consul first, which Nomad asks only rarely."""
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        self._start("consul", "-config-file", self._consul())
        wait_for(self._is_consul_up)
        self._start("nomad", "-config", self._nomad())

    def _start(self, program: str, flag: str, configuration: dict[str, Any]) -> None:
        file = self.folder / f"{program}.json"
        file.write_text(json.dumps(configuration))
        with (self.folder / "logs" / f"{program}.log").open("ab") as log:
            agent = subprocess.Popen(
                [str(self.cluster.home / "bin" / program), "agent", f"{flag}={file}"],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=processes.environment(Home(self.cluster.name)) | {MARK: str(self.cluster.home)},
                start_new_session=True,
            )
        self.agents.append(agent)

    def _is_consul_up(self) -> bool:
        try:
            return requests.get(f"http://{LOOPBACK}:{self.ports[1]}/v1/status/leader", timeout=30).ok
        except requests.ConnectionError:
            return False

    def wait_until_ready(self) -> None:
        wait_for(lambda: self.status() == "ready")

    def status(self) -> str:
        """Nomad's word for the node; empty where it does not know it, or the node not Consul."""
        stub = self._stub()
        if stub is None:
            return ""
        node = requests.get(f"{self.cluster.nomad}/v1/node/{stub['ID']}", timeout=30).json()
        return str(stub["Status"]) if "consul.version" in node["Attributes"] else ""

    def drain(self, *, is_draining: bool = True) -> None:
        """Have Nomad move everything away, or take work again."""
        stub = self._stub()
        assert stub is not None
        specification = {"Deadline": 60 * 10**9, "IgnoreSystemJobs": True} if is_draining else None
        body = {"DrainSpec": specification, "MarkEligible": not is_draining}
        requests.post(f"{self.cluster.nomad}/v1/node/{stub['ID']}/drain", json=body, timeout=30).raise_for_status()

    def kill(self) -> None:
        """Take the machine away at once: agents, executors, tasks."""
        for process in self.processes():
            process.kill()
        while self.agents:
            self.agents.pop().wait(timeout=30)

    def processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._has(process)]

    def _has(self, process: psutil.Process) -> bool:
        try:
            return is_inside(Path(f"/proc/{process.pid}/cwd").readlink(), self.folder.resolve())
        except OSError:  # gone
            return False

    def _stub(self) -> dict[str, Any] | None:
        found = requests.get(f"{self.cluster.nomad}/v1/nodes", timeout=30).json()
        return next((stub for stub in found if stub["Name"] == self.name), None)

    def _consul(self) -> dict[str, Any]:
        serf, http, grpc = self.ports[:3]
        return {
            "server": False,
            "node_name": self.name,
            "data_dir": str(self.folder / "consul"),
            "bind_addr": LOOPBACK,
            "client_addr": LOOPBACK,
            "advertise_addr": LOOPBACK,
            "retry_join": [f"{LOOPBACK}:{ports_at(self.cluster.offset).consul_serf}"],
            "retry_interval": "1s",
            "ports": {
                "serf_lan": serf, "serf_wan": -1, "http": http, "https": -1, "grpc": grpc, "grpc_tls": -1, "dns": -1,
            },
            "disable_update_check": True,
        }  # fmt: skip

    def _nomad(self) -> dict[str, Any]:
        _, consul, _, http, rpc, serf = self.ports
        record = msgspec.json.decode((self.cluster.home / "cluster.json").read_bytes(), type=Cluster)
        first = dynamic_range(record.slot)[0] + self.number * PORTS_OF_ALLOCATIONS
        return {
            "name": self.name,
            "data_dir": str(self.folder / "nomad"),
            "bind_addr": LOOPBACK,
            "ports": {"http": http, "rpc": rpc, "serf": serf},
            "advertise": {"http": LOOPBACK, "rpc": LOOPBACK, "serf": LOOPBACK},
            "client": {
                "enabled": True,
                "servers": [f"{LOOPBACK}:{ports_at(self.cluster.offset).nomad_rpc}"],
                "node_pool": POOL,
                "meta": self.meta,
                "network_interface": "lo",
                "min_dynamic_port": first,
                "max_dynamic_port": first + PORTS_OF_ALLOCATIONS - 1,
                "options": {"fingerprint.denylist": CLOUD_FINGERPRINTERS},
            },
            "plugin": [{"raw_exec": [{"config": [{"enabled": True}]}]}],
            "consul": {"address": f"{LOOPBACK}:{consul}", "server_auto_join": False, "client_auto_join": False},
            "disable_update_check": True,
        }


def wait_for(condition: Callable[[], bool], *, seconds: float = READY_WITHIN_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.3)
