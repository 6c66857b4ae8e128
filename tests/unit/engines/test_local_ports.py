import itertools
import random
import socket

import pytest

from nomadserve.engines.local import ports
from nomadserve.engines.local.ports import Ports, choose_slot, dynamic_range, ports_at, taken


def test_default_ports_are_the_well_known_ones() -> None:
    assert ports_at(0) == Ports()
    assert (ports_at(0).nomad_http, ports_at(0).consul_http, ports_at(0).consul_dns) == (4646, 8500, 8600)
    assert ports_at(0).gateway == 8080


def test_offset_moves_every_port() -> None:
    assert ports_at(30).all() == tuple(port + 30 for port in ports_at(0).all())


@pytest.mark.parametrize("offset", range(0, 100, ports.OFFSET_STEP))
def test_clusters_at_different_steps_share_no_port(offset: int) -> None:
    here = set(ports_at(offset).all())

    assert len(here) == len(ports_at(offset).all())
    assert all(here.isdisjoint(ports_at(other).all()) for other in range(0, 100, ports.OFFSET_STEP) if other != offset)


def test_no_fixed_port_reaches_the_ranges_of_allocations() -> None:
    assert max(ports_at(ports.OFFSET_MAX).all()) <= dynamic_range(0)[0]


def test_ranges_of_allocations_do_not_overlap_and_stay_below_the_kernels() -> None:
    ranges = [dynamic_range(slot) for slot in range(ports.SLOTS)]

    assert all(last < first for (_, last), (first, _) in itertools.pairwise(ranges))
    assert ranges[-1][1] < 32768


def test_slot_follows_the_offset_and_steps_aside_for_others() -> None:
    assert choose_slot(0, []) == 0
    assert choose_slot(20, []) == 2
    assert choose_slot(20, [2, 3]) == 4
    assert choose_slot(0, range(ports.SLOTS)) is None


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_port_that_something_listens_on_is_taken(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as holder:
        # Between the ranges of allocations and the kernel's own: nobody else takes one of these by chance.
        port = random.choice([port for port in range(32000, 32768) if not taken([port])])
        holder.bind(("127.0.0.1", port))
        if kind == socket.SOCK_STREAM:
            holder.listen()

        assert taken([port]) == [port]
    assert taken([port]) == []
