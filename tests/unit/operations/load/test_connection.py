"""What a connection makes of the bytes of a reply, however they are cut."""

import asyncio
from typing import Any
from unittest.mock import create_autospec

import pytest

from nomadserve.operations.load.connection import LOST, NO_LENGTH, Connection

REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n1234"


def connected() -> tuple[Connection, Any, list[int | str]]:
    """An open connection with one request under way, its transport, and what it called back with."""
    transport = create_autospec(asyncio.Transport, instance=True)
    connection, results = Connection(), list[int | str]()
    connection.connection_made(transport)
    connection.ask(b"request", results.append)
    return connection, transport, results


@pytest.mark.parametrize("cut", range(1, len(REPLY)))
def test_a_reply_may_come_in_two_pieces_cut_anywhere(cut: int) -> None:
    connection, _, results = connected()
    connection.data_received(REPLY[:cut])
    assert results == []
    connection.data_received(REPLY[cut:])
    assert results == [200]
    assert connection.is_open


def test_the_next_request_uses_the_same_connection() -> None:
    connection, transport, results = connected()
    connection.data_received(REPLY)
    connection.ask(b"again", results.append)
    connection.data_received(REPLY.replace(b"200 OK", b"503 Service Unavailable"))
    assert results == [200, 503]
    assert [call.args[0] for call in transport.write.call_args_list] == [b"request", b"again"]


def test_a_reply_without_a_body_is_complete_with_its_head() -> None:
    connection, _, results = connected()
    connection.data_received(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")
    assert results == [500]


def test_a_reply_that_ends_the_connection_still_counts() -> None:
    connection, transport, results = connected()
    connection.data_received(REPLY.replace(b"Content-Type: application/json", b"Connection: close"))
    assert results == [200]
    assert not connection.is_open
    transport.close.assert_called_once()


def test_a_reply_without_a_length_is_a_failure() -> None:
    connection, transport, results = connected()
    connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert results == [NO_LENGTH]
    assert not connection.is_open
    transport.abort.assert_called_once()


def test_a_lost_connection_fails_the_request_under_way_once() -> None:
    connection, _, results = connected()
    connection.connection_lost(None)
    connection.connection_lost(None)
    assert results == [LOST]


def test_a_closed_connection_calls_nobody_back() -> None:
    connection, _, results = connected()
    connection.close()
    connection.connection_lost(None)
    assert results == []
