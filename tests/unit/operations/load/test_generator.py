"""The generator against small servers on loopback. What is asserted are counts, never times."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import pytest

from nomadserve.operations.load.generator import NOT_CONNECTED, NOT_SENT, TIMEOUT, Generator
from nomadserve.operations.load.plan import Aim, Load, Outcome, Progress

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(serve: Serve, load: Load, *, connections_max: int = 64, report: Callable[[Progress], None] = print) -> Outcome:
    """One load on a server that answers with `serve`."""

    served: list[asyncio.Task[None]] = []

    async def noted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.append(task)
        await serve(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def both() -> Outcome:
        server = await asyncio.start_server(noted, "127.0.0.1", 0)
        generator = Generator(aim_at(server.sockets[0].getsockname()[1], connections_max))
        async with server:
            outcome = await generator.run(load, report)
            generator.close()
            await asyncio.gather(*served)
        return outcome

    return asyncio.run(both())


def aim_at(port: int, connections_max: int = 64) -> Aim:
    return Aim(
        address="127.0.0.1",
        port=port,
        host="digits.service.consul",
        path="/v1/inference",
        bodies=('{"n": 1}', '{"n": 22}'),
        headers={"x-nomadserve-version": "v2"},
        connections_max=connections_max,
    )


def answering(replies: list[bytes], seen: list[bytes] | None = None) -> Serve:
    """Answers with one reply after the other, for ever."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        while head := await head_of(reader):
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if seen is not None:
                seen.append(head + body)
            writer.write(replies[count % len(replies)])
            count += 1

    return serve


async def head_of(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads, and never answers."""
    while await head_of(reader):
        pass


def test_every_request_that_is_due_is_sent_and_counted() -> None:
    outcome = run(answering([OK]), Load(rate=200, seconds=0.5))
    assert (outcome.sent, outcome.ok, outcome.refused, outcome.failed) == (100, 100, 0, 0)
    assert set(outcome.latency_ms) == {"p50", "p90", "p99", "p99.9", "max"}


def test_requests_carry_host_headers_and_bodies_in_turn() -> None:
    seen: list[bytes] = []
    run(answering([OK], seen), Load(rate=50, seconds=0.1))
    assert len(seen) == 5
    assert all(b"Host: digits.service.consul\r\n" in request for request in seen)
    assert all(b"x-nomadserve-version: v2\r\n" in request for request in seen)
    assert {request[-8:] for request in seen} == {b'{"n": 1}', b'"n": 22}'}


def test_the_first_seconds_are_sent_and_not_counted() -> None:
    seen: list[bytes] = []
    outcome = run(answering([OK], seen), Load(rate=100, seconds=0.4, settle_seconds=0.195))
    assert (len(seen), outcome.sent, outcome.ok) == (40, 20, 20)


def test_refusals_are_told_from_failures() -> None:
    bad = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
    outcome = run(answering([OK, FULL, FULL, bad]), Load(rate=100, seconds=0.4))
    assert (outcome.ok, outcome.refused, outcome.failures) == (10, 20, {"status 500": 10})
    assert outcome.error_share == pytest.approx(0.75)


def test_a_late_reply_delays_no_request() -> None:
    outcome = run(silent, Load(rate=40, seconds=0.5, timeout_s=2))
    assert (outcome.sent, outcome.ok) == (20, 0)
    assert outcome.failures == {TIMEOUT: 20}


def test_a_request_that_finds_no_connection_in_time_was_not_sent() -> None:
    outcome = run(silent, Load(rate=40, seconds=0.25, timeout_s=0.2), connections_max=0)
    assert outcome.failures == {NOT_SENT: 10}


def test_a_refused_connection_fails_its_request() -> None:
    async def alone() -> Outcome:
        with socket.socket() as bound:  # and not listening
            bound.bind(("127.0.0.1", 0))
            return await Generator(aim_at(bound.getsockname()[1])).run(Load(rate=50, seconds=0.2), print)

    assert asyncio.run(alone()).failures == {NOT_CONNECTED: 10}


def test_a_server_that_hangs_up_after_each_reply_is_connected_to_again() -> None:
    closing = OK.replace(b"Content-Length", b"Connection: close\r\nContent-Length")
    outcome = run(answering([closing]), Load(rate=100, seconds=0.2))
    assert outcome.ok == 20


def test_a_rate_of_zero_is_a_pause() -> None:
    outcome = run(answering([OK]), Load(rate=0, seconds=0.05))
    assert (outcome.sent, outcome.latency_ms) == (0, {})
