"""The ports of a local cluster: well-known ones, moved by one offset, and a range of their own for allocations."""

import socket
from collections.abc import Collection

import msgspec

OFFSET_STEP = 10  # ports of two clusters never meet by it below offset 100, where 8500 becomes 8600
OFFSET_MAX = 1000  # so that no well-known port reaches the allocations' ranges
SLOT_PORTS = 200
SLOTS = 60  # 20000 to 31999, Nomad's own range, below the kernel's for outgoing connections


class Ports(msgspec.Struct, frozen=True):
    """Every fixed port of a cluster; the defaults are the well-known ones."""

    nomad_http: int = 4646
    nomad_rpc: int = 4647
    nomad_serf: int = 4648
    consul_server: int = 8300
    consul_serf: int = 8301
    consul_http: int = 8500
    consul_grpc: int = 8502
    consul_dns: int = 8600
    gateway: int = 8080
    gateway_sidecar: int = 8081
    gateway_waiting: int = 8082
    gateway_admin: int = 19000
    gateway_metrics: int = 9102
    prometheus: int = 9090
    autoscaler: int = 9095

    def moved(self, offset: int) -> "Ports":
        """The same ports, each higher by `offset`."""
        return Ports(*(port + offset for port in self.all()))

    def all(self) -> tuple[int, ...]:
        """All of them, in order."""
        return msgspec.structs.astuple(self)

    def consul(self) -> tuple[int, ...]:
        """Those that the Consul agent listens on."""
        return (self.consul_server, self.consul_serf, self.consul_http, self.consul_grpc, self.consul_dns)

    def nomad(self) -> tuple[int, ...]:
        """Those that the Nomad agent listens on."""
        return (self.nomad_http, self.nomad_rpc, self.nomad_serf)


def ports_at(offset: int) -> Ports:
    """The fixed ports of a cluster with that offset."""
    return Ports().moved(offset)


def taken(ports: Collection[int]) -> list[int]:
    """Those of `ports` that something on this machine already listens on, by TCP or UDP."""
    return [port for port in ports if not (_is_free(port, socket.SOCK_STREAM) and _is_free(port, socket.SOCK_DGRAM))]


def dynamic_range(slot: int) -> tuple[int, int]:
    """First and last port that a cluster gives to allocations."""
    first = 20000 + slot * SLOT_PORTS
    return first, first + SLOT_PORTS - 1


def choose_slot(offset: int, used: Collection[int]) -> int | None:
    """A range of dynamic ports that no other cluster has; clusters of other users differ by their offsets."""
    wanted = offset // OFFSET_STEP
    return next((slot for i in range(SLOTS) if (slot := (wanted + i) % SLOTS) not in used), None)


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    """Whether a socket may be bound; REUSEADDR lets ports of connections that are only closing count as free."""
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
