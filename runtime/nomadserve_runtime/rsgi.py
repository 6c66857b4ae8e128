"""What an application gets of one request: the shape of granian's RSGI, and what overload needs beside it.

The head as attributes, the body in one piece, the reply in one call: ASGI's dictionaries and messages would cost a
request about 25 µs more.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

ReplyHeaders = list[tuple[str, str]]


# By name in lower case; the values of a header that came several times stand with commas between.
Headers = Mapping[str, str]


class Scope(Protocol):
    """The head of a request."""

    @property
    def method(self) -> str:
        """In capitals."""
        ...

    @property
    def path(self) -> str:
        """Percent-decoded, without the query."""
        ...

    @property
    def query_string(self) -> str:
        """As it came, without the question mark."""
        ...

    @property
    def scheme(self) -> str:
        """Always `http`."""
        ...

    @property
    def http_version(self) -> str:
        """1.0 or 1.1."""
        ...

    @property
    def client(self) -> str:
        """`host:port` of the other end."""
        ...

    @property
    def server(self) -> str:
        """`host:port` of this end."""
        ...

    @property
    def headers(self) -> Headers:
        """See `Headers`."""
        ...

    @property
    def notes(self) -> dict[object, Any]:
        """Where the application may keep what follows from the head alone.

        Requests with the same head, byte by byte, may share it, for as long as the process lives.
        """
        ...


class Exchange(Protocol):
    """The body of a request and the way back."""

    def __call__(self) -> Awaitable[bytes | memoryview]:
        """The whole body, a large one in memory of its own.

        Raises `ConnectionError` where the client goes away half way, `TooSlow` where it dawdles.
        """
        ...

    def take_whole(self) -> bytes | memoryview | None:
        """The whole body, where it is there already and came with a length; else None, and it is still to be read."""
        ...

    def begun(self) -> bytes | memoryview | None:
        """What of a large body came with its head, where more of it has come since; else None."""
        ...

    def read_end(self, memory: memoryview) -> bool:
        """Read the end of a body that has `begun`, as long as the memory: from before the end of that beginning.

        False: not all of it has come yet. The body is still to be read, as if nobody had tried.
        """
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body in pieces; raises as the call does."""
        ...

    def client_disconnect(self) -> Awaitable[None]:
        """Return when the client closes the connection."""
        ...

    def response_bytes(self, status: int, headers: ReplyHeaders, body: bytes) -> None:
        """Send the reply. A second one is ignored. The server adds `content-length`, and throws an unread body away."""
        ...

    def response_fields(self, status: int, fields: str, body: bytes, *, is_last: bool = False) -> None:
        """As `response_bytes`, its headers ready-made: lines, each with its end.

        is_last: the connection closes after it; in `response_bytes`, a header `connection: close` says so.
        """
        ...

    def on_hang_up(self, call: Callable[[], None]) -> None:
        """Call it, once, where the client goes away before it is answered; at once where it has gone already."""
        ...

    def hold(self) -> None:
        """Look at nothing more of this client until `let_go`."""
        ...

    def let_go(self) -> None:
        """Go on with this client."""
        ...


# An application. None where nothing is left to await: the reply was sent, or comes when it is ready.
Answer = Callable[[Scope, Exchange], Awaitable[None] | None]
