"""The HTTP server: one listening socket and its connections, on the event loop of the process."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable

from nomadserve_runtime.connection import Connection
from nomadserve_runtime.errors import CannotStart
from nomadserve_runtime.heads import KnownHeads
from nomadserve_runtime.rsgi import Answer
from nomadserve_runtime.sockets import Sockets

log = logging.getLogger("nomadserve.server")

BACKLOG = 1024
# More than this many at once are sent away: every one costs a file descriptor.
CONNECTIONS_MAX = 16_384

# How many clients are let in before others are read.
ACCEPTED_MAX = 64
# Where the process or the system has run out of file descriptors, or of memory, nobody is let in for so long.
NO_ROOM_S = 1.0

# How often slow clients are looked for.
PACE_EVERY_S = 5.0

# At the end, connections stay open this long after the listening socket closed: what was sent before is answered.
LATE_S = 0.1


class Server:
    """Its connections.

    Attributes:
        answer: the application.
        connections: those that are open.
        heads: that came before.
        is_stopping: every reply is the last one of its connection.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connections: set[Connection] = set()
        self.heads = KnownHeads()
        self.is_stopping = False
        self._pacer: asyncio.TimerHandle | None = None

    def connect(self) -> asyncio.BaseProtocol:
        """The protocol of a new connection."""
        if len(self.connections) >= CONNECTIONS_MAX:
            return _TurnedAway()
        return Connection(self)

    def watch_pace(self) -> None:
        """Look for slow clients, now and from now on."""
        now = time.monotonic()
        for connection in list(self.connections):
            connection.check_pace(now)
        self._pacer = asyncio.get_running_loop().call_later(PACE_EVERY_S, self.watch_pace)

    async def stop(self) -> None:
        """Finish the replies under way and close every connection."""
        await asyncio.sleep(LATE_S)
        self.is_stopping = True
        if self._pacer is not None:
            self._pacer.cancel()
        while self.connections:
            for connection in list(self.connections):
                connection.close_when_idle()
            await asyncio.sleep(0.01)


class _TurnedAway(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it; the client comes again, and may meet another replica."""
        transport.close()


class Door:
    """One listening socket: lets clients in while it is open."""

    def __init__(self, listener: socket.socket, server: Server, sockets: Sockets) -> None:
        self._listener = listener
        self._server = server
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()
        listener.listen(BACKLOG)
        self._open()

    def close(self) -> None:
        """Let nobody in any more."""
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _open(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._let_in)

    def _let_in(self) -> None:
        for _ in range(ACCEPTED_MAX):
            try:
                client, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("can't let anybody in for %g s: %s", NO_ROOM_S, error)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(NO_ROOM_S, self._open)
                return
            client.setblocking(False)
            # A reply is whole when it is written: nothing follows that it could wait for.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.add(client, address, self._server.connect())


@contextlib.asynccontextmanager
async def serving(
    answer: Answer, *, host: str, port: int, is_idle: Callable[[], bool] = lambda: False
) -> AsyncIterator[Sockets]:
    """Serve the application while entered; on the way out, finish the replies under way and close every connection.

    is_idle: whether nobody waits for an engine.

    Raises:
        CannotStart: nothing can listen there.
    """
    server, sockets = Server(answer), Sockets(is_idle)
    try:
        doors = [Door(listener, server, sockets) for listener in await _bound(host, port)]
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    server.watch_pace()
    try:
        yield sockets
    finally:
        for door in doors:
            door.close()
        await server.stop()
        sockets.close()


async def _bound(host: str, port: int) -> list[socket.socket]:
    """One socket for each address of `host`, non-blocking, as asyncio makes them."""
    made = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    try:
        listeners = [socket.socket(fileno=os.dup(theirs.fileno())) for theirs in made.sockets]
    finally:
        made.close()
    for listener in listeners:
        listener.setblocking(False)
    return listeners


def _cannot_listen(host: str, port: int, error: OSError) -> CannotStart:
    in_use = error.errno == errno.EADDRINUSE
    # asyncio writes a sentence of its own into the error and keeps the number.
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return CannotStart(
        f"can't listen on {host}:{port}: {reason}",
        hint="stop what uses the port, or take another: `--port`" if in_use else "check `--host` and `--port`",
    )
