"""A local cluster whose Consul and Nomad deny everything that no policy permits, set up as docs/acl.md says."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from nomadserve.engines.catalogue import ENGINES
from nomadserve.engines.find import find
from nomadserve.engines.local import config, processes
from nomadserve.engines.local.record import Cluster, reserve

PATIENCE_S = 180.0
# What a cluster with ACLs gives its agents; everybody else's tokens come from docs/acl.md.
CONSUL_AGENT = """
agent_prefix "" { policy = "read" }
node_prefix "" { policy = "write" }
service_prefix "" { policy = "read" }
"""
NOMAD_AGENT = """
agent_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
service_prefix "" { policy = "write" }
"""
IDENTITY = {"aud": ["consul.io"], "ttl": "1h"}


class Silent:
    """Progress that nobody reads."""

    def say(self, text: str) -> None: ...

    def moving(self, text: str) -> None: ...


@dataclass(frozen=True)
class AclCluster:
    """Agents that run, and the tokens that may do everything; policies are the tests' to make."""

    cluster: Cluster
    consul_token: str
    nomad_token: str

    @property
    def environment(self) -> dict[str, str]:
        """Of somebody who may do everything."""
        tokens = {"CONSUL_HTTP_TOKEN": self.consul_token, "NOMAD_TOKEN": self.nomad_token}
        return {**self.cluster.environment(), **tokens}

    def run(self, *command: str, folder: Path) -> str:
        """`consul …` or `nomad …`, with all rights; what it prints."""
        path = f"{self.cluster.home.programs}:{os.environ['PATH']}"
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment, "PATH": path},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout


def start_agents(name: str, offset: int, agents: "list[subprocess.Popen[bytes]]") -> AclCluster:
    """Consul, then Nomad; in the folder of a cluster of that name, so that `dev down` ends all of it in any case.

    agents: gets their processes, as soon as there are any.
    """
    cluster = reserve(name, offset=offset, nomad_config=(), progress=Silent())
    home = cluster.home
    home.programs.mkdir()
    for engine in ENGINES.values():
        found_engine = find(engine)
        assert found_engine is not None, engine.name
        (home.programs / engine.program).symlink_to(found_engine.path)
    consul_acl = {"acl": {"enabled": True, "default_policy": "deny", "enable_token_persistence": True}}
    home.consul_config.write_text(json.dumps(config.consul_config(cluster) | consul_acl))
    agents.append(_start(cluster, "consul", f"-config-file={home.consul_config}"))
    consul_token = until(lambda: _send("PUT", f"{cluster.consul_url}/v1/acl/bootstrap"))["SecretID"]
    agent = _consul_token(cluster, consul_token, "agent", CONSUL_AGENT)
    address = f"{cluster.consul_url}/v1/agent/token/agent"
    until(lambda: requests.put(address, json={"Token": agent}, headers=bearer(consul_token), timeout=30).ok)

    nomad = config.nomad_config(cluster)
    token = _consul_token(cluster, consul_token, "nomad", NOMAD_AGENT)
    nomad["consul"] |= {"token": token, "service_identity": IDENTITY, "task_identity": IDENTITY}
    home.nomad_config.write_text(json.dumps(nomad | {"acl": {"enabled": True}}))
    agents.append(_start(cluster, "nomad", f"-config={home.nomad_config}"))
    nomad_token = until(lambda: _send("POST", f"{cluster.nomad_url}/v1/acl/bootstrap"))["SecretID"]
    found = AclCluster(cluster, consul_token, nomad_token)
    until(lambda: _has_ready_node(found))
    return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def until(attempt: Callable[[], Any]) -> Any:
    """What the attempt gives, once that is something; connection failures count as nothing."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            if found := attempt():
                return found
        except requests.RequestException:
            pass
        assert time.monotonic() < give_up_at, "it did not come true in time"
        time.sleep(0.3)


def _start(cluster: Cluster, program: str, flag: str) -> "subprocess.Popen[bytes]":
    """An agent, with the mark by which `dev down` finds it."""
    home = cluster.home
    home.logs.mkdir(exist_ok=True)
    with processes.log_of(home, program).open("ab") as log:
        return subprocess.Popen(
            [home.programs / program, "agent", flag],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=home.folder,
            env=processes.environment(home),
            start_new_session=True,
        )


def _send(method: str, address: str) -> Any:
    reply = requests.request(method, address, timeout=30)
    return reply.json() if reply.ok else None


def _consul_token(cluster: Cluster, management: str, name: str, rules: str) -> str:
    """A token with a policy of its own."""
    address, headers = f"{cluster.consul_url}/v1/acl", bearer(management)
    policy = {"Name": name, "Rules": rules}
    until(lambda: requests.put(f"{address}/policy", json=policy, headers=headers, timeout=30).ok)
    body = {"Policies": [{"Name": name}]}
    reply = requests.put(f"{address}/token", json=body, headers=headers, timeout=30)
    reply.raise_for_status()
    token: str = reply.json()["SecretID"]
    return token


def _has_ready_node(found: AclCluster) -> bool:
    address = f"{found.cluster.nomad_url}/v1/nodes"
    nodes = requests.get(address, headers=bearer(found.nomad_token), timeout=30).json()
    return bool(nodes) and all(node["Status"] == "ready" for node in nodes)
