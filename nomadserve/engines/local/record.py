"""What is written down about a local cluster, and where its files lie."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from nomadserve.engines.local import ports as port_sets
from nomadserve.engines.local.ports import Ports
from nomadserve.engines.locks import locked
from nomadserve.engines.places import clusters_folder
from nomadserve.engines.progress import Progress
from nomadserve.errors import NomadserveError, WrongInput

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
MARK = "NOMADSERVE_CLUSTER"  # environment variable that every process of a cluster carries; its value: the home folder


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster that was started and not yet taken down, whether its processes live or not.

    Attributes:
        slot: which range of dynamic ports its allocations get.
        nomad_config: further configuration files of the Nomad agent, absolute.
    """

    name: str
    offset: int
    slot: int
    ports: Ports
    nomad_config: tuple[str, ...] = ()

    @property
    def home(self) -> "Home":
        """Its files."""
        return Home(self.name)

    @property
    def nomad_url(self) -> str:
        """Base URL of Nomad's HTTP API."""
        return f"http://127.0.0.1:{self.ports.nomad_http}"

    @property
    def consul_url(self) -> str:
        """Base URL of Consul's HTTP API."""
        return f"http://127.0.0.1:{self.ports.consul_http}"

    @property
    def gateway_url(self) -> str:
        """Where requests go in."""
        return f"http://127.0.0.1:{self.ports.gateway}"

    def environment(self) -> dict[str, str]:
        """What every other verb reads to find this cluster."""
        return {
            "NOMAD_ADDR": self.nomad_url,
            "CONSUL_HTTP_ADDR": self.consul_url,
            "CONSUL_DNS_ADDR": f"127.0.0.1:{self.ports.consul_dns}",
            "NOMADSERVE_GATEWAY": self.gateway_url,
        }


class Home:
    """The folder of one cluster."""

    def __init__(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise WrongInput(
                f"`{name}` can't be the name of a cluster",
                hint="take up to 32 lower-case letters, digits and hyphens, such as `--name demo-2`",
            )
        self.name = name
        self.folder = clusters_folder() / name
        self.record = self.folder / "cluster.json"
        self.programs = self.folder / "bin"
        self.logs = self.folder / "logs"
        self.consul_config = self.folder / "consul.json"
        self.consul_data = self.folder / "consul"
        self.nomad_config = self.folder / "nomad.json"
        self.nomad_data = self.folder / "nomad"
        self.nomad_keys_config = self.folder / "nomad-keys.json"
        self.nomad_keys_made = self.folder / "nomad-keys.made"

    def locked(self, progress: Progress) -> AbstractContextManager[None]:
        """Held by `up` and `down`, so that one cluster has one of them at a time."""
        return locked(
            clusters_folder() / ".locks" / self.name,
            when_waiting=lambda: progress.say(
                f"another `nomadserve dev` works on cluster `{self.name}`: waiting for it"
            ),
        )

    def has_nomad_keys(self) -> bool:
        """Whether a Nomad server has once made its signing keys in this cluster's data folder."""
        return self.nomad_keys_made.exists()

    def read(self) -> Cluster | None:
        """The record, or None where there is none, or none that can be read."""
        try:
            return msgspec.json.decode(self.record.read_bytes(), type=Cluster)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def write(self, cluster: Cluster) -> None:
        """Put the record in place in one step."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = self.record.with_suffix(".new")
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(cluster), indent=2))
        beside.replace(self.record)


def known_names() -> list[str]:
    """The clusters that have a folder here, in order."""
    folder = clusters_folder()
    return sorted(path.name for path in folder.iterdir() if NAME.fullmatch(path.name)) if folder.is_dir() else []


def read_cluster(name: str) -> Cluster:
    """The record of a cluster that must be there."""
    cluster = Home(name).read()
    if cluster is None:
        flag = "" if name == "default" else f" --name {name}"
        raise WrongInput(f"cluster `{name}` is not up", hint=f"start it: `nomadserve dev up{flag}`")
    return cluster


def reserve(name: str, *, offset: int | None, nomad_config: tuple[str, ...], progress: Progress) -> Cluster:
    """Choose ports that nothing else has and write them down; two clusters never choose at the same time.

    Raises:
        WrongInput: the offset asked for can't be had.
    """
    home = Home(name)
    with locked(clusters_folder() / ".locks" / ".ports", when_waiting=lambda: progress.moving("choosing ports")):
        others = list(_other_clusters(name))
        chosen = _free_offset(others) if offset is None else _checked_offset(offset, others)
        slot = port_sets.choose_slot(chosen, {other.slot for other in others})
        if slot is None:
            raise NomadserveError("no range of ports is left for another cluster", hint="`nomadserve dev down --all`")
        cluster = Cluster(
            name=name, offset=chosen, slot=slot, ports=port_sets.ports_at(chosen), nomad_config=nomad_config
        )
        home.write(cluster)
    return cluster


def _other_clusters(name: str) -> Iterator[Cluster]:
    for other in known_names():
        if other != name and (cluster := Home(other).read()) is not None:
            yield cluster


def _busy(offset: int, others: list[Cluster]) -> list[int]:
    """Ports at that offset that a program holds now, or that belong to another cluster, up or not."""
    ports = port_sets.ports_at(offset).all()
    reserved = {port for other in others for port in other.ports.all()}
    return sorted({*port_sets.taken(ports), *reserved.intersection(ports)})


def _free_offset(others: list[Cluster]) -> int:
    offsets = range(0, port_sets.OFFSET_MAX, port_sets.OFFSET_STEP)
    free = next((offset for offset in offsets if not _busy(offset, others)), None)
    if free is None:
        raise NomadserveError(
            f"no free set of ports at any offset below {port_sets.OFFSET_MAX}",
            hint="`nomadserve dev list` shows what runs; `nomadserve dev down --all` ends it",
        )
    return free


def _checked_offset(offset: int, others: list[Cluster]) -> int:
    if not 0 <= offset < port_sets.OFFSET_MAX:
        raise WrongInput(f"port offset {offset} is not between 0 and {port_sets.OFFSET_MAX - 1}")
    if busy := _busy(offset, others):
        raise WrongInput(
            f"at port offset {offset} these ports are taken: {', '.join(map(str, busy))}",
            hint="leave `--port-offset` out to get the next free one, or end what holds them",
        )
    return offset


def is_inside(path: Path, folder: Path) -> bool:
    """Whether `path` is the folder or lies below it; both absolute."""
    return path == folder or folder in path.parents
