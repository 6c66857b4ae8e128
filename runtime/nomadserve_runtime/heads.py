"""Heads that came before: a client mostly sends the same one again, and what it says need not be found out twice."""

from typing import Any

# The most and the longest heads kept: 4 MiB in all.
HEADS_MAX = 1024
HEAD_NBYTES_MAX = 4096


class KnownHead:
    """What a head says whose request came in one piece, and whose body has the length that the head tells.

    Attributes:
        notes: what the application concluded from the head; see `rsgi.Scope`.
    """

    __slots__ = ("body_nbytes", "headers", "method", "notes", "path", "query_string")

    def __init__(
        self,
        *,
        method: str,
        path: str,
        query_string: str,
        headers: dict[str, str],
        notes: dict[object, Any],
        body_nbytes: int,
    ) -> None:
        self.method = method
        self.path = path
        self.query_string = query_string
        self.headers = headers
        self.notes = notes
        self.body_nbytes = body_nbytes


class KnownHeads(dict[bytes, KnownHead]):
    """By the bytes of the head, the blank line included. All connections of a server share them."""

    def learn(self, head: bytes, known: KnownHead) -> None:
        """Keep a head; the one that was learned first makes room for it."""
        if len(self) >= HEADS_MAX:
            del self[next(iter(self))]
        self[head] = known
