"""The HTTP server: one listening socket and its connections, on the event loop of the process."""

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import AsyncIterator

from nomadserve_runtime.connection import Answer, Connection
from nomadserve_runtime.errors import CannotStart
from nomadserve_runtime.heads import KnownHeads

BACKLOG = 1024
# More than this many at once are sent away: every one costs a file descriptor.
CONNECTIONS_MAX = 16_384

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


@contextlib.asynccontextmanager
async def serving(answer: Answer, *, host: str, port: int) -> AsyncIterator[None]:
    """Serve the application while entered; on the way out, finish the replies under way and close every connection.

    Raises:
        CannotStart: nothing can listen there.
    """
    server = Server(answer)
    try:
        listener = await asyncio.get_running_loop().create_server(server.connect, host, port, backlog=BACKLOG)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    server.watch_pace()
    try:
        yield
    finally:
        listener.close()
        await server.stop()


def _cannot_listen(host: str, port: int, error: OSError) -> CannotStart:
    in_use = error.errno == errno.EADDRINUSE
    # asyncio writes a sentence of its own into the error and keeps the number.
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return CannotStart(
        f"can't listen on {host}:{port}: {reason}",
        hint="stop what uses the port, or take another: `--port`" if in_use else "check `--host` and `--port`",
    )
