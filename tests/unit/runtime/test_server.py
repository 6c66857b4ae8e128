import asyncio
import errno
import logging
import socket

import pytest

from nomadserve_runtime import server as module
from nomadserve_runtime.errors import CannotStart
from nomadserve_runtime.rsgi import Exchange, Scope
from nomadserve_runtime.server import Door, Server, serving
from nomadserve_runtime.sockets import Sockets


def answer(scope: Scope, exchange: Exchange) -> None:
    exchange.response_bytes(200, [], scope.client.encode())


async def ask(port: int, host: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        peer = writer.get_extra_info("sockname")
        assert await reader.readexactly(len(f"{peer[0]}:{peer[1]}")) == f"{peer[0]}:{peer[1]}".encode()
        return head
    finally:
        writer.close()
        await writer.wait_closed()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def test_it_serves_while_entered_and_afterwards_nobody_listens() -> None:
    async def test() -> None:
        port = free_port()
        async with serving(answer, host="127.0.0.1", port=port):
            await asyncio.gather(*(ask(port) for _ in range(20)))
        with pytest.raises(ConnectionRefusedError):
            await ask(port)

    asyncio.run(test())


def test_a_name_with_two_addresses_is_served_at_both(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        port = free_port()
        async with serving(answer, host="localhost", port=port):
            addresses = {info[4][0] for info in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
            for address in addresses:
                await ask(port, str(address))

    asyncio.run(test())


def test_a_port_in_use_is_said_with_the_way_out() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(CannotStart, match=f"can't listen on 127.0.0.1:{port}: Address already in use") as told:
                async with serving(answer, host="127.0.0.1", port=port):
                    raise AssertionError
        assert "--port" in told.value.hint

    asyncio.run(test())


class Full(socket.socket):
    """Out of file descriptors, once."""

    is_full = True

    def accept(self) -> tuple[socket.socket, object]:
        if self.is_full:
            self.is_full = False
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_where_file_descriptors_run_out_it_goes_on_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "NO_ROOM_S", 0.05)

    async def test() -> None:
        listener, sockets = Full(), Sockets()
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        server = Server(answer)
        door = Door(listener, server, sockets)
        async with asyncio.timeout(20):
            await ask(listener.getsockname()[1])
        door.close()
        await server.stop()
        sockets.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(test())
    assert [record.getMessage() for record in caplog.records] == [
        "can't let anybody in for 0.05 s: [Errno 24] Too many open files"
    ]
