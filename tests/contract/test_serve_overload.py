"""`nomadserve serve` under more load than it takes, and at its end: real processes on the fake engine."""

import contextlib
import http.client
import json
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.contract.serve_process import PATIENCE_S, PLAIN, Reply, Server, serving, until
from tests.unit.runtime.models import write_fake

LAUNCHER = Path(__file__).with_name("serve_behind_a_gate.py")
ONE_ROW = {"inputs": {"x": [[1]]}}


@contextlib.contextmanager
def gated(folder: Path, *arguments: str, **behaviour: Any) -> Iterator[tuple[Server, Path]]:
    """A server that takes one row a batch, and answers nothing until the file beside it is taken away.

    behaviour: of the fake engine, as `write_fake` takes it.
    """
    closed = folder / "closed"
    options = (str(write_fake(folder / "m.json", **behaviour)), "--engine", "fake", "--max-batch", "1", *arguments)
    with serving(folder, *options, command=(sys.executable, LAUNCHER, "serve"), GATE=str(closed)) as server:
        closed.touch()
        try:
            yield server, closed
        finally:
            closed.unlink(missing_ok=True)


def handed_over(server: Server, requests: int) -> bool:
    """Whether so many requests are in it, all of them with the engine: one runs, one is enqueued ahead."""
    in_flight, queued = (server.metric(f'nomadserve_{gauge}{{model="m"}}') for gauge in ("in_flight", "queued_rows"))
    return (in_flight, queued) == (requests, 0)


# -- overload -----------------------------------------------------------------------------------------------------


def send_one_row(server: Server) -> http.client.HTTPConnection:
    """Ask, and don't wait for the answer."""
    connection = server.connect()
    connection.request("POST", PLAIN, json.dumps({"inputs": {"x": [[1]]}}))
    return connection


def test_the_queue_limit_is_exact_and_the_rest_is_refused_at_once(tmp_path: Path) -> None:
    model = write_fake(tmp_path / "slow.json", delay_ms=60_000)
    with serving(tmp_path, str(model), "--engine", "fake", "--max-batch", "1", "--queue-max", "4") as server:
        # One runs, one is enqueued ahead, four are queued; no batch comes back while this test lasts. The first two
        # leave the queue before others come: all in one turn of the event loop, they would be two too many for it.
        connections = [send_one_row(server) for _ in range(2)]
        until(lambda: server.metric('nomadserve_in_flight{model="slow"}') == 2)
        until(lambda: server.metric('nomadserve_queued_rows{model="slow"}') == 0)
        with ThreadPoolExecutor(28) as pool:
            connections += pool.map(lambda _: send_one_row(server), range(28))
        until(lambda: server.metric('nomadserve_refused_total{model="slow",reason="queue_full"}') == 24)
        assert server.metric('nomadserve_in_flight{model="slow"}') == 6
        assert server.metric('nomadserve_queued_rows{model="slow"}') == 4
        assert server.metric('nomadserve_requests_total{model="slow",outcome="refused"}') == 24
        refused = server.ask("POST", PLAIN, {"inputs": {"x": [[1]]}})
        assert refused.status == 503
        # Six rows of a minute each, and nobody is told more than a minute.
        assert refused.content == {"error": "the queue is full", "reason": "queue_full", "retry_after_ms": 60_000}
        assert refused.headers["retry-after"] == "60"
        for connection in connections:
            connection.close()


def test_a_refused_client_keeps_its_connection_even_with_a_large_body(tmp_path: Path) -> None:
    behaviour = {"delay_ms": 20, "inputs": [{"name": "x", "shape": [100_000]}]}
    body = {"inputs": {"x": [[1.5] * 100_000]}}
    with ThreadPoolExecutor(3) as pool, gated(tmp_path, "--queue-max", "1", **behaviour) as (server, closed):
        accepted: list[Future[Reply]] = []
        for _ in range(3):
            accepted.append(pool.submit(server.ask, "POST", PLAIN, body))
            until(lambda: server.metric('nomadserve_in_flight{model="m"}') == len(accepted))
        connection = server.connect()
        assert server.ask("POST", PLAIN, body, over=connection).status == 503
        kept = connection.sock
        assert server.ask("GET", "/v2/health/live", over=connection).status == 200
        assert connection.sock is kept
        connection.close()
        closed.unlink()
        assert [asked.result().status for asked in accepted] == [200, 200, 200]


def test_a_request_that_waits_too_long_expires(tmp_path: Path) -> None:
    options = ("--queue-timeout", "100ms")
    with ThreadPoolExecutor(4) as pool, gated(tmp_path, *options, delay_ms=5) as (server, closed):
        running = [pool.submit(server.ask, "POST", PLAIN, ONE_ROW) for _ in range(2)]
        until(lambda: handed_over(server, 2))
        expired = list(pool.map(lambda _: server.ask("POST", PLAIN, ONE_ROW), range(2)))
        assert [(reply.status, reply.content["reason"]) for reply in expired] == [(504, "deadline")] * 2
        assert server.metric('nomadserve_requests_total{model="m",outcome="expired"}') == 2
        closed.unlink()
        assert [asked.result().status for asked in running] == [200, 200]


def test_a_request_that_can_not_make_its_deadline_is_refused_at_the_door(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool, gated(tmp_path, delay_ms=20, calibrated_ms=20_000) as (server, closed):
        running = [pool.submit(server.ask, "POST", PLAIN, ONE_ROW) for _ in range(2)]
        until(lambda: handed_over(server, 2))
        hopeless = server.ask("POST", PLAIN, ONE_ROW, headers={"x-nomadserve-timeout-ms": "10"})
        assert (hopeless.status, hopeless.content["reason"]) == (503, "deadline")
        assert 20 < int(hopeless.headers["retry-after"]) <= 40  # two batches of 20 s, the first perhaps half over
        closed.unlink()
        assert [asked.result().status for asked in running] == [200, 200]
        assert server.metric('nomadserve_refused_total{model="m",reason="deadline"}') == 1


def test_a_client_that_hangs_up_is_noticed(tmp_path: Path) -> None:
    with gated(tmp_path, delay_ms=20) as (server, closed):
        connections = [send_one_row(server) for _ in range(3)]
        until(lambda: server.metric('nomadserve_in_flight{model="m"}') == 3)
        until(lambda: server.metric('nomadserve_queued_rows{model="m"}') == 1)
        for connection in connections:
            connection.close()
        until(lambda: server.metric('nomadserve_queued_rows{model="m"}') == 0)
        closed.unlink()
        until(lambda: server.metric('nomadserve_requests_total{model="m",outcome="abandoned"}') == 3)


def test_an_engine_that_fails_answers_500_and_goes_on(tmp_path: Path) -> None:
    model = write_fake(tmp_path / "failing.json", fail_on=666)
    with serving(tmp_path, str(model), "--engine", "fake") as server:
        failed = server.ask("POST", PLAIN, {"inputs": {"x": [[666]]}})
        assert (failed.status, failed.content["reason"]) == (500, "failed")
        assert server.ask("POST", PLAIN, {"inputs": {"x": [[1]]}}).status == 200


# -- the end ------------------------------------------------------------------------------------------------------


class Load:
    """Clients that ask without a pause, each over its own kept connection, until told to stop or cut off."""

    def __init__(self, server: Server, clients: int) -> None:
        self.statuses: Counter[int] = Counter()
        self.cut_off_mid_reply = 0
        self._stop = threading.Event()
        self._server = server
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _client(self) -> None:
        connection = self._server.connect()
        while not self._stop.is_set():
            fresh = connection.sock is None
            try:
                reply = self._server.ask("POST", PLAIN, {"inputs": {"x": [[1]]}}, over=connection)
            except ConnectionRefusedError:
                return  # gone for good
            except (ConnectionError, http.client.RemoteDisconnected):
                # A kept connection that closes before it answers took nothing: any client sends again. A new one
                # that was accepted and then closed without a word is a lost request.
                self.cut_off_mid_reply += fresh and self._is_listening()
                connection.close()
                continue
            self.statuses[reply.status] += 1
        connection.close()

    def _is_listening(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._server.port), 1):
            return True
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_nothing_that_was_accepted(number: int, tmp_path: Path) -> None:
    model = write_fake(tmp_path / "m.json", delay_ms=20)
    with serving(tmp_path, str(model), "--engine", "fake", "--max-batch", "4", "--drain-delay", "4s") as server:
        with Load(server, clients=16) as load:
            until(lambda: load.statuses[200] > 100)
            server.tell_to_end(number)
            until(lambda: server.ask("GET", "/v2/health/ready").status == 503)
            answered = load.statuses[200]
            until(lambda: load.statuses[200] > answered)  # not ready, and still answering
            assert server.wait() == 0
        assert set(load.statuses) <= {200, 503}
        assert load.cut_off_mid_reply == 0
        assert "drained; ending" in server.log.read_text()


def test_every_request_in_the_queue_at_the_signal_is_answered(tmp_path: Path) -> None:
    with gated(tmp_path, delay_ms=20) as (server, closed):
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(server.ask, "POST", PLAIN, {"inputs": {"x": [[n]]}}) for n in range(6)]
            until(lambda: server.metric('nomadserve_in_flight{model="m"}') == 6)
            server.tell_to_end()
            until(lambda: server.ask("GET", "/v2/health/ready").status == 503)  # it has heard
            refused = server.ask("POST", PLAIN, {"inputs": {"x": [[9]]}})
            assert (refused.status, refused.content["reason"]) == (503, "draining")
            assert refused.headers["connection"] == "close"
            closed.unlink()
            assert [reply.result().content["outputs"]["y"] for reply in asked] == [[[n]] for n in range(6)]
        assert server.wait() == 0


def test_a_second_signal_ends_it_on_the_spot(tmp_path: Path) -> None:
    model = write_fake(tmp_path / "m.json")
    with serving(tmp_path, str(model), "--engine", "fake", "--drain-delay", "20s") as server:
        server.tell_to_end()
        until(lambda: server.ask("GET", "/v2/health/ready").status == 503)
        server.tell_to_end()
        assert server.wait() == 1


def test_a_drain_that_takes_too_long_ends_with_1(tmp_path: Path) -> None:
    model = write_fake(tmp_path / "m.json", delay_ms=10_000)
    with serving(tmp_path, str(model), "--engine", "fake", "--drain-timeout", "200ms") as server:
        connection = send_one_row(server)
        until(lambda: server.metric('nomadserve_in_flight{model="m"}') == 1)
        server.tell_to_end()
        assert server.wait() == 1
        assert "gave up draining after 0.2 s with 1 requests unanswered" in server.log.read_text()
        connection.close()
