"""The HTTP server: granian, embedded, so that this process owns its event loop and its signals."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

from nomadserve_runtime.errors import CannotStart

# Granian serves this many connections at once and lets all others wait, unseen. Its own default is 128.
CONNECTIONS_MAX = 16_384
BACKLOG = 1024


@contextlib.asynccontextmanager
async def serving(app: Any, *, host: str, port: int) -> AsyncIterator[None]:
    """Serve the ASGI `app` while entered; on the way out, finish the replies under way and close every connection.

    Raises:
        CannotStart: nothing can listen there.
    """
    _check_free(host, port)
    server = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=CONNECTIONS_MAX,
        log_level=LogLevels.error,
        # Its errors go where ours go, not to stdout.
        log_dictconfig={"formatters": {}, "handlers": {}, "loggers": {"_granian": {"propagate": True}}},
    )
    task = asyncio.create_task(server.serve())
    try:
        await _wait_until_listening(task, host, port)
        yield
    finally:
        server.stop()  # type: ignore[no-untyped-call]
        await task


def _check_free(host: str, port: int) -> None:
    """Granian shares its port with any other process that shares it too; we don't want half of the requests."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        raise CannotStart(
            f"can't listen on {host}:{port}: {error.strerror or error}",
            hint="stop what uses the port, or take another: `--port`" if in_use else "check `--host` and `--port`",
        ) from error


async def _wait_until_listening(task: "asyncio.Task[None]", host: str, port: int) -> None:
    while True:
        if task.done():
            raise CannotStart(f"can't serve on {host}:{port}: {task.exception()}")
        try:
            _, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
            continue
        writer.close()
        await writer.wait_closed()
        return
