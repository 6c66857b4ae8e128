"""Sockets of the server, and clients who speak to them, over real sockets of one machine."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from nomadserve_runtime.sockets import Address, ClientSocket, Sockets


class Ear(asyncio.Protocol):
    """Hears one client."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.ends: list[Exception | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, ClientSocket)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data == b"fail":
            raise ZeroDivisionError
        self.heard.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)

    def rest_is_here(self) -> None:
        self.transport.set_protocol(self)


class Street:
    """Sockets, and clients who speak to them."""

    def __init__(self) -> None:
        self.is_idle = False
        self.sockets = Sockets(lambda: self.is_idle)
        self.clients: list[socket.socket] = []

    def come(self) -> tuple[socket.socket, Ear]:
        """A new client, and who hears it."""
        theirs, ours = socket.socketpair()
        self.clients.append(theirs)
        for end in (theirs, ours):
            end.setblocking(False)
        ear = Ear()
        self.sockets.add(ours, ("127.0.0.1", 1), ear)
        return theirs, ear


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not claim():
            await asyncio.sleep(0.001)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def on(test: Callable[[Street], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        street = Street()
        try:
            async with asyncio.timeout(30):
                await test(street)
        finally:
            for client in street.clients:
                client.close()
            # Else a socket that nobody closed would be found with the garbage, in whichever test that is looked for.
            await until(lambda: not street.sockets._by_number)
            street.sockets.close()

    asyncio.run(bounded())


async def read_all(client: socket.socket, nbytes: int) -> bytes:
    read = bytearray()
    while len(read) < nbytes:
        piece = await asyncio.get_running_loop().sock_recv(client, 1 << 20)
        assert piece
        read += piece
    return bytes(read)


def tcp_pair() -> tuple[socket.socket, socket.socket, Address]:
    """A client, our end, the client's address. Over TCP: only there does the kernel throw away what it is told to."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    ours, address = listener.accept()
    listener.close()
    for end in (client, ours):
        end.setblocking(False)
    return client, ours, address
