"""One HTTP/1.1 connection to the target: one request at a time, kept alive between them.

It reads what it needs and no more: the status, the length, and whether the connection lives on. `nomadserve serve` and
Envoy both name the length of every reply; a reply without one can't be measured here and counts as a failure.
"""

import asyncio
import re
from collections.abc import Callable

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"
_STATUS = slice(9, 12)  # "HTTP/1.1 200 OK"

NO_LENGTH = "reply without a length"
LOST = "connection lost"

Answered = Callable[[int | str], None]


class Connection(asyncio.Protocol):
    """Sends a request, calls back with the status, or with a word for what went wrong.

    Attributes:
        is_open: whether another request may be sent.
        head: of the last reply, without the blank line at its end.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.head = b""
        self._transport: asyncio.Transport | None = None
        self._answered: Answered | None = None
        self._head = b""
        self._status = 0
        self._missing = -1  # bytes of the reply that have not come; below 0 while its head is incomplete

    def ask(self, request: bytes, answered: Answered) -> None:
        """Send `request`; `answered` is called once. The connection must be idle and open."""
        assert self._transport is not None
        assert self._answered is None
        self._answered = answered
        self._transport.write(request)

    def close(self) -> None:
        """Hang up; a request under way gets no call back."""
        self._answered = None
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        if self._missing < 0:
            data = self._head + data
            end = data.find(_END_OF_HEAD)
            if end < 0:
                self._head = data
                return
            if not self._read_head(data[: end + 2]):
                return
            data = data[end + 4 :]
        self._missing -= len(data)
        if self._missing <= 0:
            self._finish(self._status)

    def connection_lost(self, error: Exception | None) -> None:
        """Part of `asyncio.Protocol`."""
        self.is_open = False
        if self._answered is not None:
            self._finish(LOST)

    def _read_head(self, head: bytes) -> bool:
        """Take status and length from the head; False where the reply can't be followed."""
        self.head = head
        length = _LENGTH.search(head)
        if length is None:
            self.is_open = False
            self._finish(NO_LENGTH)
            self.close()
            return False
        self._status, self._missing = int(head[_STATUS]), int(length[1])
        if _CLOSE.search(head):
            self.is_open = False
        return True

    def _finish(self, result: int | str) -> None:
        answered, self._answered = self._answered, None
        self._head, self._missing = b"", -1
        if answered is not None:
            answered(result)
        if not self.is_open and self._transport is not None:
            self._transport.close()
