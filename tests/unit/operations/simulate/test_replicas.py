import math

import pytest

from nomadserve.operations.simulate.replicas import Capacity, Replica, scrape, serve

TEN = Capacity(rate=10, queued_max=20, latency_s=0.1)


def ready(count: int) -> list[Replica]:
    return [Replica(-math.inf, -math.inf) for _ in range(count)]


def test_below_its_capacity_nothing_waits_and_nothing_is_refused() -> None:
    replicas = ready(2)
    tick = serve(replicas, offered=19, seconds=1, capacity=TEN)
    assert (tick.refused, tick.wait_s) == (0, 0)
    assert sum(replica.finished for replica in replicas) == 19


def test_above_it_the_queue_grows_and_the_wait_with_it() -> None:
    replicas = ready(1)
    waits = [serve(replicas, offered=15, seconds=1, capacity=TEN).wait_s for _ in range(3)]
    assert replicas[0].queued == 15
    assert waits == pytest.approx([0.25, 0.75, 1.25])


def test_what_the_queue_can_not_hold_is_refused() -> None:
    replicas = ready(1)
    tick = serve(replicas, offered=50, seconds=1, capacity=TEN)
    assert (tick.refused, replicas[0].queued) == (20, 20)
    assert replicas[0].finished == 30  # the refused are counted too, as the runtime's metric does
    assert sum(requests for _, requests in tick.waits) == 30


def test_no_request_is_lost_or_made() -> None:
    replicas, offered, refused = ready(3), 0.0, 0.0
    for load in (5, 80, 200, 0, 31, 0, 0, 7):
        tick = serve(replicas, load, 1, TEN)
        offered, refused = offered + load, refused + tick.refused
    finished = sum(replica.finished for replica in replicas)
    assert finished + sum(replica.queued for replica in replicas) == pytest.approx(offered)
    assert refused > 0


def test_without_a_ready_replica_all_is_refused() -> None:
    assert serve([], 7, 1, TEN).refused == 7


def test_a_replica_runs_before_it_is_ready_and_neither_after_its_stop() -> None:
    replica = Replica(running_at=1, ready_at=5, stopped_at=9)
    assert [replica.is_running(at) for at in (0, 1, 5, 9)] == [False, True, True, False]
    assert [replica.is_ready(at) for at in (0, 1, 5, 9)] == [False, False, True, False]


def test_what_is_worked_on_is_in_flight_with_what_waits() -> None:
    replicas = ready(1)
    serve(replicas, offered=15, seconds=1, capacity=TEN)
    scrape(replicas, 1.0, TEN)
    assert replicas[0].in_flight == [(1.0, 5 + 10 * 0.1)]
    assert replicas[0].requests == [(1.0, 10.0)]
