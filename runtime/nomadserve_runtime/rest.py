"""The rest of a large body: off the socket straight into the memory in which it is read, or thrown away.

Through the parser, every byte of an image is copied three times before anybody looks at it; so only the head, and what
came with it, goes that way.
"""

import asyncio
from typing import Protocol

# Shorter rests come with one or two reads: two changes of the protocol would cost more than they save.
REST_NBYTES_MIN = 16 * 1024

# Of a large body, no more comes with its head: these bytes are copied twice.
READ_NBYTES_MAX = 16 * 1024


# Where this part of it has come, what is missing most often comes while the kernel copies.
WORTHWHILE_PART = 8


class Line(Protocol):
    """What the rest of a body asks of its connection."""

    def rest_is_here(self) -> None:
        """Its last byte has come; the connection is the transport's protocol again."""
        ...

    def connection_lost(self, error: Exception | None) -> None:
        """The client went away in the middle of it."""
        ...


class Source(asyncio.Transport):
    """A transport that is asked for what has come already, in the turn in which something of it came."""

    def waiting_nbytes(self) -> int:
        """How much has come that nobody has read."""
        raise NotImplementedError

    def read_into(self, memory: memoryview) -> int:
        """Read what has come, as much as there is memory for; how much that was."""
        raise NotImplementedError

    def throw_away(self, nbytes: int) -> int:
        """Forget what has come, so much of it at most; how much that was."""
        raise NotImplementedError


class Rest(asyncio.BufferedProtocol):
    """Takes the place of the connection at its transport until so many bytes have come, and not one more.

    into: where they go, of just that size; None throws them away.

    Attributes:
        left: how many are still to come.
    """

    def __init__(self, line: Line, nbytes: int, into: memoryview | None) -> None:
        assert nbytes > 0
        assert into is None or len(into) == nbytes
        self.left = nbytes
        self._line = line
        self._into = into

    @property
    def is_kept(self) -> bool:
        """Whether somebody will read these bytes."""
        return self._into is not None

    def throw_away(self) -> None:
        """Nobody will read these bytes any more."""
        self._into = None

    def get_buffer(self, _: int) -> memoryview:
        """Where the next bytes go, where they are kept."""
        assert self._into is not None
        return self._into[-self.left :]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come."""
        self.left -= nbytes
        if self.left == 0:
            self._line.rest_is_here()

    def connection_lost(self, error: Exception | None) -> None:
        """The client went away in the middle."""
        self._line.connection_lost(error)
