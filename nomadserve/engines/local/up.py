"""Brings a local cluster up: whatever of it already runs is kept, whatever is missing is started."""

import json
from pathlib import Path

from nomadserve.engines.catalogue import CONSUL, ENVOY, NOMAD
from nomadserve.engines.find import Found
from nomadserve.engines.install import ensure
from nomadserve.engines.local import api, config, health, platform, ports, processes
from nomadserve.engines.local.down import take_down
from nomadserve.engines.local.record import Cluster, Home, reserve
from nomadserve.engines.local.waiting import wait_until
from nomadserve.engines.progress import Progress
from nomadserve.errors import NomadserveError, WrongInput
from nomadserve.platform import ENTRIES

START_TIMEOUT_S = 120.0  # an agent is up in seconds; a laptop that also compiles may take far longer


def bring_up(
    name: str, *, offset: int | None, nomad_config: tuple[Path, ...], progress: Progress
) -> tuple[Cluster, bool]:
    """Start the cluster, or what is missing of it; the second value tells whether all of it was already there.

    Raises:
        WrongInput: the running cluster has other ports or configuration than asked for.
        NomadserveError: a part ended early, with the last lines of its log.
        TimedOut: a part did not become healthy.
    """
    home = Home(name)
    with home.locked(progress):
        cluster = _known_cluster(home, offset=offset, nomad_config=nomad_config, progress=progress)
        if cluster is not None and health.is_up(cluster):
            return cluster, True
        found = ensure((NOMAD, CONSUL, ENVOY), progress)
        if cluster is None:
            files = tuple(str(path.absolute()) for path in nomad_config)
            cluster = reserve(name, offset=offset, nomad_config=files, progress=progress)
        _start_all(cluster, found, progress)
    return cluster, False


def _known_cluster(
    home: Home, *, offset: int | None, nomad_config: tuple[Path, ...], progress: Progress
) -> Cluster | None:
    """The recorded cluster that is to be kept; None where a new one is to be made, in a place that is then clean."""
    cluster = home.read()
    if cluster is None:
        if home.folder.exists() or processes.members(home):
            progress.say(f"cleaning up what an earlier run of `{home.name}` left")
            take_down(home, progress)
        return None
    wanted = tuple(str(path.absolute()) for path in nomad_config)
    hint = f"take it down first: `nomadserve dev down --name {home.name}`"
    if offset is not None and offset != cluster.offset:
        raise WrongInput(f"cluster `{home.name}` has port offset {cluster.offset}, not {offset}", hint=hint)
    if wanted and wanted != cluster.nomad_config:
        raise WrongInput(f"cluster `{home.name}` was started with other Nomad configuration files", hint=hint)
    return cluster


def _start_all(cluster: Cluster, found: dict[str, Found], progress: Progress) -> None:
    _link_programs(cluster.home, found)
    _start_making_keys(cluster, found["nomad"])
    _start_consul(cluster, found["consul"], progress)
    _finish_making_keys(cluster)
    _start_nomad(cluster, found["nomad"], progress)
    _start_gateway(cluster, progress)
    _start_scaling(cluster, progress)


def _link_programs(home: Home, found: dict[str, Found]) -> None:
    """A folder with just our engines, for the PATH of the agents: Nomad and the gateway's task look for them there."""
    home.programs.mkdir(parents=True, exist_ok=True)
    for engine in found.values():
        link = home.programs / engine.engine.program
        link.unlink(missing_ok=True)
        link.symlink_to(engine.path.absolute())


def _start_consul(cluster: Cluster, consul: Found, progress: Progress) -> None:
    home = cluster.home
    if processes.find_agent(home, home.consul_config) is None:
        progress.say(f"starting Consul {consul.version} on port {cluster.ports.consul_http}")
        _need_ports("Consul", cluster.ports.consul(), cluster)
        _write_json(home.consul_config, config.consul_config(cluster))
        processes.start(home, "consul", [str(consul.path), "agent", f"-config-file={home.consul_config}"])
    wait_until(
        lambda: api.consul_answers(cluster) and health.consul_has_leader(cluster),
        what="a leader for Consul",
        timeout_s=START_TIMEOUT_S,
        meanwhile=lambda: processes.check_alive(home, "consul", home.consul_config),
    )
    wait_until(lambda: _write_entries(cluster), what="writing Consul's config entries", timeout_s=START_TIMEOUT_S)


def _write_entries(cluster: Cluster) -> bool:
    """Create what is missing; entries that are there hold the routes of deployed services."""
    for entry in ENTRIES:
        api.create_config_entry(cluster, entry)
    return True


def _start_making_keys(cluster: Cluster, nomad: Found) -> None:
    """On an empty data folder, run a server without a client until it has its signing keys, while Consul starts.

    A client that registers while the server still makes them is refused, and tries again only after 15 to 30 s.
    """
    home = cluster.home
    if home.has_nomad_keys() or processes.find_agent(home, home.nomad_config) is not None:
        return
    if processes.find_agent(home, home.nomad_keys_config) is None:
        _need_ports("Nomad", cluster.ports.nomad(), cluster)
        _write_json(home.nomad_keys_config, config.nomad_keys_config(cluster))
        processes.start(home, "nomad-keys", [str(nomad.path), "agent", f"-config={home.nomad_keys_config}"])


def _finish_making_keys(cluster: Cluster) -> None:
    home = cluster.home
    server = processes.find_agent(home, home.nomad_keys_config)
    if server is None and (home.has_nomad_keys() or processes.find_agent(home, home.nomad_config) is not None):
        return
    wait_until(
        lambda: api.has_signing_keys(cluster),
        what="signing keys for Nomad",
        timeout_s=START_TIMEOUT_S,
        meanwhile=lambda: processes.check_alive(home, "nomad-keys", home.nomad_keys_config),
    )
    assert server is not None, "without it, `check_alive` has raised"
    processes.end([server], grace_s=START_TIMEOUT_S)
    home.nomad_keys_made.touch()


def _start_nomad(cluster: Cluster, nomad: Found, progress: Progress) -> None:
    home = cluster.home
    if processes.find_agent(home, home.nomad_config) is None:
        progress.say(f"starting Nomad {nomad.version} on port {cluster.ports.nomad_http}")
        _need_ports("Nomad", cluster.ports.nomad(), cluster)
        _write_json(home.nomad_config, config.nomad_config(cluster))
        files = [f"-config={path}" for path in (home.nomad_config, *cluster.nomad_config)]
        processes.start(home, "nomad", [str(nomad.path), "agent", *files])
    wait_until(
        lambda: health.nomad_is_ready(cluster),
        what="a ready Nomad node",
        timeout_s=START_TIMEOUT_S,
        meanwhile=lambda: processes.check_alive(home, "nomad", home.nomad_config),
    )


def _start_gateway(cluster: Cluster, progress: Progress) -> None:
    """Register the job where it is missing or stopped; one that is there may have services added to it: keep it."""
    if not platform.has_job(cluster, "gateway"):
        progress.say(f"starting the gateway on port {cluster.ports.gateway}")
        platform.register(cluster, "gateway")
    else:
        progress.say(f"waiting for the gateway on port {cluster.ports.gateway}")

    def check_agents() -> None:
        processes.check_alive(cluster.home, "consul", cluster.home.consul_config)
        processes.check_alive(cluster.home, "nomad", cluster.home.nomad_config)

    wait_until(
        lambda: health.gateway_listens(cluster) and health.gateway_passes(cluster),
        what="a listening gateway",
        timeout_s=START_TIMEOUT_S,
        meanwhile=check_agents,
    )


def _start_scaling(cluster: Cluster, progress: Progress) -> None:
    """Start what scaling needs, and do not wait for it: services can be deployed from now on.

    It is installed only now for the same reason; where it can't be had, the cluster is up without it.
    """
    try:
        _link_programs(cluster.home, ensure(platform.ENGINES.values(), progress))
    except NomadserveError as error:
        progress.say(f"nothing is scaled in this cluster: {error.message}")
        return
    for part in platform.ENGINES:
        if not platform.has_job(cluster, part):
            progress.say(f"starting {part} on port {getattr(cluster.ports, part)}")
            platform.register(cluster, part)


def _need_ports(program: str, needed: tuple[int, ...], cluster: Cluster) -> None:
    if busy := ports.taken(needed):
        raise NomadserveError(
            f"{program} of cluster `{cluster.name}` needs ports that are taken: {', '.join(map(str, busy))}",
            hint=f"end what holds them, or start afresh: `nomadserve dev down --name {cluster.name}`, then `dev up`",
        )


def _write_json(path: Path, value: object) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(value, indent=2) + "\n")
    beside.replace(path)
