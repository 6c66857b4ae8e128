"""The framework behind the server's own interface: RSGI in, ASGI out."""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from nomadserve_runtime.rsgi import Exchange, ReplyHeaders, Scope

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class AsgiBridge:
    """Answers a request by an ASGI application, and adds `headers` to its reply.

    The reply is gathered and sent whole: what is served behind it is small.
    """

    def __init__(self, app: AsgiApp, headers: ReplyHeaders) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, exchange: Exchange) -> None:
        """One request."""
        reply, started_at = _Reply(), time.monotonic()
        await self._app(_asgi_scope(scope), _Body(exchange).receive, reply.send)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in reply.headers]
        timing = f"total;dur={(time.monotonic() - started_at) * 1e3:.3f}"
        headers += [*self._headers, ("server-timing", timing)]
        exchange.response_bytes(reply.status, headers, bytes(reply.body))


class _Body:
    """The body of the request as ASGI messages; after its end, the end of the connection."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._pieces = aiter(exchange)
        self._is_whole = False

    async def receive(self) -> Message:
        if self._is_whole:
            await self._exchange.client_disconnect()
            return {"type": "http.disconnect"}
        piece = await anext(self._pieces, b"")
        self._is_whole = not piece
        return {"type": "http.request", "body": piece, "more_body": not self._is_whole}


class _Reply:
    """The reply as it comes in by ASGI messages."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            # The server writes the length itself.
            self.headers = [pair for pair in message["headers"] if pair[0] != b"content-length"]
        else:
            self.body += message.get("body", b"")


def _asgi_scope(scope: Scope) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": scope.http_version,
        "method": scope.method,
        "scheme": scope.scheme,
        "path": scope.path,
        "raw_path": scope.path.encode(),
        "query_string": scope.query_string.encode(),
        "root_path": "",
        "server": _address(scope.server),
        "client": _address(scope.client),
        "state": {},
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in scope.headers.items()],
    }


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
