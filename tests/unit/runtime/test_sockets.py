"""Over real sockets of one machine: what the rest of the tests do without."""

import asyncio
import logging
import socket
import struct
from typing import Any

import pytest

from nomadserve_runtime import sockets as module
from nomadserve_runtime.rest import READ_NBYTES_MAX, REST_NBYTES_MIN, Rest
from tests.unit.runtime.street import Ear, Street, on, read_all, tcp_pair, turns, until

# More than the buffers of both sockets take.
MUCH = bytes(range(256)) * 16 * 1024


def test_what_clients_send_is_heard_and_answered() -> None:
    async def test(street: Street) -> None:
        pairs = [street.come() for _ in range(100)]
        for number, (client, _) in enumerate(pairs):
            client.send(b"%d" % number)
        for number, (client, ear) in enumerate(pairs):
            await until(lambda ear=ear: bool(ear.heard))
            ear.transport.write(b"reply " + ear.heard[0])
            assert await read_all(client, 7) == b"reply %d" % number
        assert pairs[0][1].transport.get_extra_info("peername") == ("127.0.0.1", 1)

    on(test)


def test_in_one_turn_a_bounded_number_of_clients_is_read_and_in_the_end_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_MAX", 4)

    async def test(street: Street) -> None:
        pairs = [street.come() for _ in range(10)]
        for client, _ in pairs:
            client.send(b"x")
        most = heard = 0
        while heard < len(pairs):
            await asyncio.sleep(0)
            now = sum(len(ear.heard) for _, ear in pairs)
            most, heard = max(most, now - heard), now
        assert most == 4

    on(test)


def test_where_many_wait_for_long_all_are_read_so_that_the_queue_knows_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_MAX", 2)
    monkeypatch.setattr(module, "FULL_TURNS_MAX", 3)
    monkeypatch.setattr(module, "CLIENTS_MIN", 11)

    def most_read_in_a_turn(clients: int) -> int:
        most = 0

        async def test(street: Street) -> None:
            nonlocal most
            pairs = [street.come() for _ in range(clients)]
            for client, _ in pairs:
                client.send(b"x")
            heard = 0
            while heard < clients:
                await asyncio.sleep(0)
                now = sum(len(ear.heard) for _, ear in pairs)
                most, heard = max(most, now - heard), now

        on(test)
        return most

    assert most_read_in_a_turn(11) == 2
    assert most_read_in_a_turn(12) == 12 - 3 * 2


def test_whoever_sends_all_the_time_keeps_nobody_from_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_MAX", 2)

    async def test(street: Street) -> None:
        loud = [street.come() for _ in range(6)]
        quiet, ear = street.come()
        for client, _ in loud:
            client.send(b"x")
        quiet.send(b"please")
        for _ in range(20):
            for client, _ in loud:
                client.send(b"x")
            await asyncio.sleep(0)
        assert ear.heard == [b"please"]

    on(test)


def test_who_is_not_read_waits_in_the_system_and_loses_nothing() -> None:
    async def test(street: Street) -> None:
        client, ear = street.come()
        ear.transport.pause_reading()
        client.send(b"abc")
        await turns(10)
        assert not ear.heard
        ear.transport.resume_reading()
        await until(lambda: ear.heard == [b"abc"])

    on(test)


def test_a_long_reply_arrives_whole_though_the_client_is_slow() -> None:
    async def test(street: Street) -> None:
        client, ear = street.come()
        ear.transport.write(MUCH)
        ear.transport.write(b"the end")
        left = ear.transport.get_write_buffer_size()
        assert 0 < left <= len(MUCH) + 7
        ear.transport.close()
        await turns(10)
        assert ear.transport.is_closing()
        assert not ear.ends
        assert await read_all(client, len(MUCH) + 7) == MUCH + b"the end"
        await until(lambda: ear.ends == [None])
        assert await asyncio.get_running_loop().sock_recv(client, 1) == b""

    on(test)


def test_one_may_read_and_write_at_the_same_time() -> None:
    async def test(street: Street) -> None:
        client, ear = street.come()
        ear.transport.write(MUCH)
        client.send(b"still here")
        await until(lambda: ear.heard == [b"still here"])
        assert await read_all(client, len(MUCH)) == MUCH
        client.send(b"again")
        await until(lambda: len(ear.heard) == 2)

    on(test)


def test_a_client_that_goes_is_missed_once() -> None:
    async def test(street: Street) -> None:
        client, ear = street.come()
        client.close()
        await until(lambda: ear.ends == [None])
        ear.transport.close()
        ear.transport.abort()
        ear.transport.write(b"nobody reads this")
        ear.transport.resume_reading()
        await turns(5)
        assert ear.ends == [None]

    on(test)


def test_a_client_that_goes_with_a_reply_unread_is_missed() -> None:
    async def test(street: Street) -> None:
        client, ear = street.come()
        ear.transport.write(MUCH)
        ear.transport.close()
        client.close()
        await until(lambda: len(ear.ends) == 1)
        assert isinstance(ear.ends[0], OSError)

    on(test)


def test_abort_does_not_wait_for_the_client() -> None:
    async def test(street: Street) -> None:
        _, ear = street.come()
        ear.transport.write(MUCH)
        ear.transport.abort()
        await until(lambda: ear.ends == [None])

    on(test)


def test_one_that_is_closed_in_a_turn_is_not_read_in_it() -> None:
    async def test(street: Street) -> None:
        (one, first), (other, second) = street.come(), street.come()
        first.data_received = lambda data: second.transport.close()  # type: ignore[method-assign]
        first.transport.set_protocol(first)
        one.send(b"x")
        other.send(b"x")
        await until(lambda: second.ends == [None])
        assert not second.heard

    on(test)


def test_a_bug_costs_one_connection_and_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def test(street: Street) -> None:
        (client, ear), (other, well) = street.come(), street.come()
        client.send(b"fail")
        other.send(b"x")
        await until(lambda: ear.ends == [None] and well.heard == [b"x"])

    with caplog.at_level(logging.ERROR):
        on(test)
    assert [record.getMessage() for record in caplog.records] == ["a connection failed"]


def test_what_has_come_is_read_or_thrown_away_at_once_and_not_a_byte_more() -> None:
    async def test(street: Street) -> None:
        client, ours, address = tcp_pair()
        street.clients.append(client)
        ear, memory = Ear(), memoryview(bytearray(300))
        street.sockets.add(ours, address, ear)
        assert ear.transport.waiting_nbytes() == ear.transport.read_into(memory) == ear.transport.throw_away(10) == 0
        client.send(MUCH[:1000])
        assert ear.transport.waiting_nbytes() == 1000
        assert ear.transport.read_into(memory) == 300
        assert bytes(memory) == MUCH[:300]
        assert ear.transport.throw_away(600) == 600
        assert ear.transport.read_into(memory) == 100
        assert bytes(memory[:100]) == MUCH[900:1000]
        client.close()
        assert ear.transport.read_into(memory) == ear.transport.throw_away(10) == 0
        await until(lambda: ear.ends == [None])

    on(test)


class Trickle(socket.socket):
    """One whose client sends so much between two looks; None: nothing."""

    pieces: list[int | None]

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:  # type: ignore[override]
        piece = self.pieces.pop(0) if self.pieces else None
        if piece is None:
            raise BlockingIOError
        return super().recv_into(buffer[:piece], nbytes, flags)


@pytest.mark.parametrize(
    ("pieces", "read"),
    [
        ([100, None, None, 150, 50], 300),
        ([100, *[None] * (module.IN_VAIN_MAX - 1), 200], 300),
        ([100, *[None] * module.IN_VAIN_MAX, 200], 100),
        ([], 0),
    ],
)
def test_what_comes_while_it_reads_is_read_too_but_not_waited_for(pieces: list[int | None], read: int) -> None:
    async def test(street: Street) -> None:
        client, ours, address = tcp_pair()
        street.clients.append(client)
        trickle, ear, memory = Trickle(fileno=ours.detach()), Ear(), memoryview(bytearray(300))
        trickle.pieces = list(pieces)
        street.sockets.add(trickle, address, ear)
        client.send(MUCH[:400])
        assert ear.transport.read_into(memory) == read
        assert bytes(memory[:read]) == MUCH[:read]

    on(test)


def test_a_client_that_is_gone_has_sent_nothing_more() -> None:
    async def test(street: Street) -> None:
        client, ours, address = tcp_pair()
        ear = Ear()
        street.sockets.add(ours, address, ear)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it ends with a reset
        client.close()
        assert ear.transport.read_into(memoryview(bytearray(10))) == 0
        assert ear.transport.throw_away(10) == 0
        await until(lambda: len(ear.ends) == 1)

    on(test)


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_rest_of_a_body_goes_into_its_memory_or_nowhere_and_not_a_byte_more(is_kept: bool) -> None:
    body = bytes(range(256)) * (REST_NBYTES_MIN // 64)

    async def test(street: Street) -> None:
        client, ours, address = tcp_pair()
        street.clients.append(client)
        ear, into = Ear(), memoryview(bytearray(len(body)))
        street.sockets.add(ours, address, ear)
        ear.transport.set_protocol(Rest(ear, len(body), into if is_kept else None))
        await asyncio.get_running_loop().sock_sendall(client, body + b"next")
        await until(lambda: b"".join(ear.heard) == b"next")
        assert bytes(into) == (body if is_kept else bytes(len(body)))
        assert bytes(module.NOWHERE[:1000]) == bytes(1000)
        assert all(len(piece) <= READ_NBYTES_MAX for piece in ear.heard)

    on(test)


def test_the_rest_of_a_body_that_has_come_with_its_head_is_read_in_the_same_turn() -> None:
    class Mouth(Ear):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.set_protocol(Rest(self, 1000, memoryview(body)))

    body = bytearray(1000)

    async def test(street: Street) -> None:
        client, ours = socket.socketpair()
        street.clients.append(client)
        ours.setblocking(False)
        ear = Mouth()
        street.sockets.add(ours, ("127.0.0.1", 1), ear)
        client.send(b"h" * READ_NBYTES_MAX + MUCH[:1000])
        ear.transport.read()
        assert ear.transport.get_protocol() is ear
        assert body == MUCH[:1000]

    on(test)


def test_where_many_have_sent_something_replies_go_out_together_and_none_stays_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BUSY_MIN", 5)
    monkeypatch.setattr(module, "TOGETHER_MAX", 3)

    async def test(street: Street) -> None:
        pairs = [street.come() for _ in range(5)]
        sent: list[int] = []

        def answer(number: int, ear: Ear) -> None:
            ear.transport.write(b"reply")
            if number == 4:
                ear.transport.close()  # and yet its reply arrives
            sent.append(sum(not ear.transport.get_write_buffer_size() for _, ear in pairs[: number + 1]))

        for number, (client, ear) in enumerate(pairs):
            ear.data_received = lambda _, number=number, ear=ear: answer(number, ear)  # type: ignore[method-assign,misc]
            ear.transport.set_protocol(ear)
            client.send(b"x")
        for client, _ in pairs:
            assert await read_all(client, 5) == b"reply"
        assert sent == [0, 0, 3, 3, 3]
        await until(lambda: pairs[4][1].ends == [None])

    on(test)


def test_of_two_replies_one_after_the_other_none_overtakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_MIN", 1)

    async def test(street: Street) -> None:
        client, ear = street.come()
        client.send(b"x")
        await until(lambda: bool(ear.heard))
        ear.transport.write(b"first ")
        ear.transport.write(b"second")
        assert await read_all(client, 12) == b"first second"
        other, gone = street.come()
        other.send(b"x")
        await until(lambda: bool(gone.heard))
        gone.transport.write(b"late")
        gone.transport.abort()
        await until(lambda: gone.ends == [None])

    on(test)
