"""One request as an application gets it: its head, its body as it comes in, and the way back.

Here is the state of one request; `connection` knows the socket, the parser and the order of requests.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import numpy as np

from nomadserve_runtime.rsgi import ReplyHeaders

log = logging.getLogger("nomadserve.http")

# How much of a body is kept before somebody asks for it.
AHEAD_NBYTES_MAX = 256 * 1024
# A body that nobody will read is read off the socket all the same, up to here, after the reply: most clients send all
# before they listen, and would see a broken pipe in the place of the reply.
DISCARD_NBYTES_MAX = 64 * 1024 * 1024


class Line(Protocol):
    """What a request asks of its connection.

    Attributes:
        is_lost: the client has gone.
    """

    is_lost: bool

    def want_body(self, request: "Request", *, whole: bool) -> None:
        """Somebody reads the body of `request` now, in pieces or whole."""
        ...

    def has_more(self, request: "Request") -> bool:
        """Whether much of the rest of a large body has come, so that `read_end` is worth while."""
        ...

    def read_end(self, request: "Request", memory: memoryview) -> bool:
        """Read the rest of a large body into memory of its size; False where not all of it has come."""
        ...

    def send(self, request: "Request", status: int, fields: str, body: bytes) -> None:
        """Write a reply; `fields`: its headers as lines, each with its end."""
        ...

    def pause(self, reason: str) -> None:
        """Read nothing from the socket until every reason has gone."""
        ...

    def resume(self, reason: str) -> None:
        """A reason not to read has gone."""
        ...

    def hold(self) -> None:
        """Look at nothing that comes from now on."""
        ...

    def let_go(self) -> None:
        """Go on with what came since."""
        ...

    def abort(self) -> None:
        """Close the connection without another word."""
        ...

    def address(self, end: str) -> str:
        """`host:port` of the "peername" or the "sockname"."""
        ...


class Request:
    """One request: its head (`rsgi.Scope`), its body and the way back (`rsgi.Exchange`)."""

    __slots__ = (
        "_ahead_nbytes",
        "_connection",
        "_is_streamed",
        "_is_taken",
        "_on_hang_up",
        "_pieces",
        "_waiter",
        "expects_continue",
        "headers",
        "http_version",
        "is_answered",
        "is_whole",
        "keep_alive",
        "method",
        "notes",
        "path",
        "query_string",
        "received_at",
    )

    scheme = "http"

    def __init__(
        self,
        connection: Line,
        method: str,
        path: str,
        query_string: str,
        headers: dict[str, str],
        notes: dict[object, Any],
        body: bytes | None = None,
    ) -> None:
        """`body`: where it has come already, whole; else None, and it comes by `add` and `end`.

        One whose body has come in part may be made as if that were all, if `is_whole` is taken back at once.
        """
        self.method = method
        self.path = path
        self.query_string = query_string
        self.headers = headers
        self.notes = notes
        self.http_version = "1.1"
        self.keep_alive = True
        self.is_whole = body is not None
        self.is_answered = False
        self.expects_continue = False
        self.received_at = time.monotonic()
        self._connection = connection
        self._pieces: list[bytes | memoryview] = [] if body is None else [body]
        self._ahead_nbytes = 0 if body is None else len(body)
        self._is_taken = False
        self._is_streamed = False
        self._waiter: asyncio.Future[None] | None = None
        self._on_hang_up: Callable[[], None] | None = None

    @property
    def client(self) -> str:
        """Address of the other end."""
        return self._connection.address("peername")

    @property
    def server(self) -> str:
        """Address of this end."""
        return self._connection.address("sockname")

    # -- the body, for the application ----------------------------------------------------------------------------

    async def __call__(self) -> bytes | memoryview:
        """The whole body; raises `ConnectionError` where the client goes away, `TooSlow` where it takes too long."""
        self._take(whole=True)
        while not self.is_whole:
            await self._wait()
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def take_whole(self) -> bytes | memoryview | None:
        """The whole body, where it has come already and in one piece, of the length that the head says."""
        if not self.is_whole or self._is_taken or len(self._pieces) != 1 or "content-length" not in self.headers:
            return None
        self._is_taken = True
        return self._pieces[0]

    def begun(self) -> bytes | memoryview | None:
        """What of a large body came with its head, where more of it has come since; else None."""
        if self.is_whole or self._is_taken or not self._connection.has_more(self):
            return None
        return self._pieces[0]

    def read_end(self, memory: memoryview) -> bool:
        """Read the end of a body that has `begun`; False where not all of it has come: it is still to be read."""
        [beginning] = self._pieces
        here = len(memory) - self.rest_nbytes
        memory[:here] = memoryview(beginning)[len(beginning) - here :]
        self._is_taken = self._connection.read_end(self, memory[here:])
        return self._is_taken

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body in pieces as they come."""
        self._take(whole=False)
        self._is_streamed = True
        return self._read()

    async def _read(self) -> AsyncIterator[bytes]:
        while self._pieces or not self.is_whole:
            if not self._pieces:
                await self._wait()
                continue
            piece = b"".join(self._pieces)
            self._pieces.clear()
            yield piece

    def _take(self, *, whole: bool) -> None:
        if self._is_taken:
            raise RuntimeError("the body was read before")
        self._is_taken = True
        if not self.is_whole:
            self._connection.want_body(self, whole=whole)

    async def _wait(self) -> None:
        if self._connection.is_lost:
            raise ConnectionResetError("the client went away")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # -- the way back ---------------------------------------------------------------------------------------------

    def response_bytes(self, status: int, headers: ReplyHeaders, body: bytes) -> None:
        """Send the reply; the first one counts."""
        is_last = ("connection", "close") in headers
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers if name != "connection"])
        self.response_fields(status, fields, body, is_last=is_last)

    def response_fields(self, status: int, fields: str, body: bytes, *, is_last: bool = False) -> None:
        """Send the reply, its headers ready-made."""
        if not self.is_answered:
            self.is_answered = True
            if is_last:
                self.keep_alive = False
            self._pieces.clear()
            self._on_hang_up = None  # it knows this request: a cycle, which only the garbage collector would find
            self._connection.send(self, status, fields, body)

    def on_hang_up(self, call: Callable[[], None]) -> None:
        """Call it, once, where the client goes away before it is answered; at once where it has gone already."""
        self._on_hang_up = call
        if self._connection.is_lost:
            self.lose()

    async def client_disconnect(self) -> None:
        """Return when the client has closed the connection."""
        gone = asyncio.get_running_loop().create_future()
        self._on_hang_up = lambda: None if gone.done() else gone.set_result(None)
        if not self._connection.is_lost:
            await gone

    def hold(self) -> None:
        """Look at nothing more of this client until `let_go`."""
        self._connection.hold()

    def let_go(self) -> None:
        """Go on with this client."""
        self._connection.let_go()

    # -- for the connection ---------------------------------------------------------------------------------------

    @property
    def is_repeatable(self) -> bool:
        """Whether a request with the same head, byte by byte, would differ from it in its body only."""
        return self.keep_alive and self.http_version == "1.1" and "expect" not in self.headers

    def add(self, piece: bytes) -> None:
        """A piece of the body has come."""
        self._ahead_nbytes += len(piece)
        if self.is_answered:
            if self._ahead_nbytes > DISCARD_NBYTES_MAX:
                self._connection.abort()
            return
        self._pieces.append(piece)
        if not self._is_taken and self._ahead_nbytes > AHEAD_NBYTES_MAX:
            self._connection.pause("ahead")
        elif self._is_streamed and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def rest_nbytes(self) -> int:
        """How much of the body is still to come; 0 where the head does not say."""
        length = self.headers.get("content-length", "")
        return int(length) - self._ahead_nbytes if length.isdigit() and not self.is_whole else 0

    @property
    def is_endless(self) -> bool:
        """Whether the body is longer than anybody reads only to throw it away."""
        return self._ahead_nbytes + self.rest_nbytes > DISCARD_NBYTES_MAX

    def keep_rest(self) -> memoryview:
        """Memory for the rest of the body, behind what has come of it."""
        rest_nbytes = self.rest_nbytes
        # Not a bytearray, which would be filled with zeros first.
        whole = np.empty(self._ahead_nbytes + rest_nbytes, np.uint8).data
        whole[: self._ahead_nbytes] = b"".join(self._pieces)
        self._pieces = [whole]
        return whole[-rest_nbytes:]

    def end(self) -> None:
        """The body is whole."""
        self.is_whole = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """The rest of the body will not come."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def lose(self) -> None:
        """The client went away."""
        self.fail(ConnectionResetError("the client went away"))
        if self._on_hang_up is not None and not self.is_answered:
            self._on_hang_up()


async def finish(request: Request, answer: Awaitable[None]) -> None:
    """Wait until a request is answered; what goes wrong meanwhile is our bug, and told as such."""
    try:
        await answer
    except Exception:
        log.exception("a request failed")
        request.response_bytes(500, [], b"")
