"""A Consul and a Nomad that deny what no policy permits, set up by the commands and policies of docs/acl.md."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.integration.acl_cluster import PATIENCE_S, AclCluster, bearer, start_agents, until
from tests.integration.local_clusters import Cli, free_offset

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "acl.md").read_text()
SERVICE = """service "digits" {
  version = "{{ version }}"
  model "digits" {
    source = "model.json"
    engine = "fake"
  }
  resources {
    cpu    = 20
    memory = "100 MiB"
  }
  scaling {
    min = 1
    max = 2
    evaluation_interval = "2s"
    query = "vector({{ replicas }})"
  }
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the policies of the document, each under the name that it has there, and a service."""
    folder = tmp_path_factory.mktemp("acl")
    policies = re.findall(r"```hcl\n# (\S+\.hcl)\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(policies) == 4
    for name, text in policies:
        (folder / name).write_text(text)
    tensor = '[{"name": "x", "shape": [1]}]'
    (folder / "model.json").write_text(f'{{"inputs": {tensor}, "outputs": {tensor}}}')
    (folder / "service.hcl.j2").write_text(SERVICE)
    return folder


@pytest.fixture(scope="module")
def denying(bare_cli: Cli, state_home: Path) -> Iterator[AclCluster]:
    """The agents, and no policy but theirs."""
    name = f"acl-{os.getpid()}"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(state_home))
        agents: list[subprocess.Popen[bytes]] = []
        try:
            yield start_agents(name, free_offset(state_home), agents)
        finally:
            bare_cli("dev", "down", "--name", name)
            for agent in agents:
                agent.wait(PATIENCE_S)


def commands(word: str) -> str:
    """The shell block of the document that has the word."""
    [block] = [block for block in re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL) if word in block]
    return str(block)


@pytest.fixture(scope="module")
def people(bare_cli: Cli, denying: AclCluster, folder: Path) -> Callable[..., Cli]:
    """The command line of somebody with these tokens, of all that the document creates."""
    for word in ("nomad setup consul", "binding-rule", "-job nomadserve-autoscaler", "builtin/dns"):
        denying.run("bash", "-euc", commands(word), folder=folder)
    printed = denying.run("bash", "-euc", commands("nomadserve-people"), folder=folder)
    [nomad_token] = re.findall(r"Secret ID += (\S+)", printed)
    secrets = re.findall(r"SecretID: +(\S+)\nDescription: +(\w+)", printed)
    consul_tokens = {description: secret for secret, description in secrets}

    def somebody(consul: str | None, *, in_nomad: bool = True) -> Cli:
        tokens = {"CONSUL_HTTP_TOKEN": consul_tokens[consul]} if consul else {}
        tokens |= {"NOMAD_TOKEN": nomad_token} if in_nomad else {}
        return Cli({**bare_cli.environment, **denying.cluster.environment(), **tokens}, folder)

    return somebody


@pytest.fixture(scope="module")
def platform(people: Callable[..., Cli]) -> Cli:
    """Somebody who may run the platform, and does."""
    cli = people("platform")
    cli("platform", "up")
    return cli


@pytest.fixture(scope="module")
def digits(platform: Cli, people: Callable[..., Cli]) -> Cli:
    """Somebody who may deploy `digits`, and has deployed two versions."""
    cli = people("digits")
    for version in ("v1", "v2"):
        cli("up", "service.hcl.j2", "--var", f"version={version}", "--var", "replicas=1")
    return cli


def test_the_platform_is_healthy_with_the_rights_of_the_document(platform: Cli) -> None:
    def states() -> list[str]:
        status = platform.json("platform", "status")
        assert isinstance(status, list)
        return [part["state"] for part in status]

    until(lambda: states() == ["healthy"] * 3)
    assert "nothing to change" in platform("platform", "up").stderr


def test_a_service_is_deployed_split_asked_by_name_and_shown(digits: Cli) -> None:
    assert "traffic of digits: v1=70 v2=30" in digits("split", "digits", "v1=70", "v2=30").stderr
    assert '"model":"digits"' in digits("call", "digits", '{"inputs": {"x": [[1]]}}').stdout
    until(lambda: re.search(r"v1 +70 % +healthy +1/1", digits("status", "digits").stdout))
    assert "nothing to change" in digits("plan", "service.hcl.j2", "--var", "version=v2", "--var", "replicas=1").stdout


def test_prometheus_finds_the_replicas_and_the_autoscaler_scales_them(digits: Cli, denying: AclCluster) -> None:
    digits("up", "service.hcl.j2", "--var", "version=v2", "--var", "replicas=2")
    job = f"{denying.cluster.nomad_url}/v1/job/digits-v2"

    def count() -> int:
        found = requests.get(job, headers=bearer(denying.nomad_token), timeout=30).json()
        wanted: int = found["TaskGroups"][0]["Count"]
        return wanted

    def targets() -> int:
        status = digits.json("platform", "status")
        assert isinstance(status, list)
        [detail] = [part["detail"] for part in status if part["part"] == "prometheus"]
        measured = re.search(r"measures (\d+) of (\d+) targets", detail)
        return int(measured[2]) if measured else 0

    until(lambda: count() == 2)
    until(lambda: targets() >= 7)  # two replicas of v2, one of v1, the gateway twice, the Autoscaler, itself


def test_the_waiting_room_is_registered_and_may_ask_for_replicas(digits: Cli, denying: AclCluster) -> None:
    assert "nomadserve-waiting" in denying.run("consul", "catalog", "services", folder=digits.folder)
    address = f"http://127.0.0.1:{denying.cluster.ports.gateway_waiting}/v2/health/live"
    assert requests.get(address, headers={"x-nomadserve-wakes": "digits-v1 5 5"}, timeout=30).status_code == 200
    assert requests.get(address, headers={"x-nomadserve-wakes": "digits-v9 5 0"}, timeout=30).status_code == 503


def test_no_token_is_part_of_a_job(digits: Cli, denying: AclCluster) -> None:
    secret = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
    for job in ("nomadserve-gateway", "nomadserve-prometheus", "nomadserve-autoscaler", "digits-v1"):
        address = f"{denying.cluster.nomad_url}/v1/job/{job}/submission?version=0"
        reply = requests.get(address, headers=bearer(denying.nomad_token), timeout=30)
        assert reply.ok
        assert not secret.search(reply.json()["Source"])


@pytest.mark.parametrize(
    ("who", "command", "error", "rule"),
    [
        (
            None,
            "status digits",
            "Consul does not permit to read service-splitter `digits`",
            'service "digits" { policy',
        ),
        (None, "platform status", "Consul does not permit to read service-router", 'service "nomadserve" { policy'),
        (
            "platform",
            "up service.hcl.j2 --yes --var version=v3 --var replicas=1",
            "Consul does not permit to write service-defaults `digits-v3`",
            'service "digits-v3" { policy = "write" }',
        ),
        (
            "platform",
            "split digits v1=10 v2=90",
            "Consul does not permit to write service-splitter `digits`",
            'service "digits" { policy = "write" }',
        ),
    ],
)
def test_a_right_that_is_missing_in_consul_is_named(
    digits: Cli, people: Callable[..., Cli], who: str | None, command: str, error: str, rule: str
) -> None:
    refused = people(who)(*command.split(), check=False)
    assert refused.returncode == 2
    assert f"error: {error}" in refused.stderr
    assert f"hint: set CONSUL_HTTP_TOKEN to a token whose policy has `{rule}" in refused.stderr


@pytest.mark.parametrize(
    ("command", "rule"),
    [
        ("status", 'namespace "*" { capabilities = ["list-jobs"] }'),
        ("plan service.hcl.j2 --var version=v1 --var replicas=1", 'namespace "default" { capabilities = ["'),
        ("down digits --yes", 'namespace "*" { capabilities = ["list-jobs"] }'),
    ],
)
def test_a_right_that_is_missing_in_nomad_is_named(
    digits: Cli, people: Callable[..., Cli], command: str, rule: str
) -> None:
    refused = people("digits", in_nomad=False)(*command.split(), check=False)
    assert refused.returncode == 2
    assert "error: Nomad does not permit to " in refused.stderr
    assert f"hint: set NOMAD_TOKEN to a token whose policy has `{rule}" in refused.stderr


def test_a_health_list_that_comes_empty_for_want_of_rights_is_no_empty_list(digits: Cli, denying: AclCluster) -> None:
    blind = 'service "nomadserve" { policy = "read" }'  # the entries, but no node to which an instance belongs
    create = f"consul acl policy create -name blind -rules '{blind}'; consul acl token create -policy-name blind"
    [secret] = re.findall(r"SecretID: +(\S+)", denying.run("bash", "-euc", create, folder=digits.folder))
    refused = Cli({**digits.environment, "CONSUL_HTTP_TOKEN": secret})("platform", "status", check=False)
    assert refused.returncode == 2
    assert "error: Consul does not permit to read the health of `nomadserve`" in refused.stderr
    assert '`node_prefix "" { policy = "read" }`' in refused.stderr


def test_a_gateway_that_may_not_register_says_so_and_is_replaced_once_it_may(
    platform: Cli, denying: AclCluster, folder: Path
) -> None:
    rules = json.loads(denying.run("consul", "acl", "binding-rule", "list", "-format", "json", folder=folder))
    [rule] = [rule["ID"] for rule in rules if rule["BindName"] == "nomadserve-gateway"]
    denying.run("consul", "acl", "binding-rule", "delete", "-id", rule, folder=folder)
    platform("platform", "down", "gateway", "--force")
    refused = platform("platform", "up", "gateway", "--timeout", "40", check=False)
    assert refused.returncode == 3
    assert "lacks permission 'service:write' on \"nomadserve-gateway\"" in refused.stderr
    assert "hint: Consul does not permit it: docs/acl.md says what each part needs there" in refused.stderr
    denying.run("bash", "-euc", commands("binding-rule"), folder=folder)
    platform("platform", "down", "gateway", "--force")
    assert "gateway is healthy" in platform("platform", "up", "gateway").stderr


def test_what_is_taken_away_is_gone(digits: Cli) -> None:
    digits("down", "digits", "--yes")
    assert digits.json("status") == []
