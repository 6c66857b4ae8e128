"""Heads of requests that came before, and heads of replies.

A client mostly sends the same head again, and what it says need not be found out twice.
"""

import time
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import unquote

import httptools

from nomadserve_runtime.request import Line, Request

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
# Not a status of HTTP's own: nobody reads it, the client has gone.
STATUS_LINES[499] = "HTTP/1.1 499 Client Closed Request\r\n"

# The most and the longest heads kept: 4 MiB in all.
HEADS_MAX = 1024
HEAD_NBYTES_MAX = 4096


class KnownHead:
    """What a head says that came before, of a request whose body has the length that the head tells.

    Attributes:
        notes: what the application concluded from the head; see `rsgi.Scope`.
        is_large: the application had its body read whole, and it came with more than one read.
    """

    __slots__ = ("body_nbytes", "headers", "is_large", "method", "notes", "path", "query_string")

    def __init__(self, request: Request, *, is_large: bool) -> None:
        self.method = request.method
        self.path = request.path
        self.query_string = request.query_string
        self.headers = request.headers
        self.notes = request.notes
        self.body_nbytes = int(request.headers["content-length"])
        self.is_large = is_large


class KnownHeads(dict[bytes, KnownHead]):
    """By the bytes of the head, the blank line included. All connections of a server share them."""

    def learn(self, head: bytes, request: Request, *, is_large: bool) -> None:
        """Keep the head of this request; the one that was learned first makes room for it."""
        if len(self) >= HEADS_MAX:
            del self[next(iter(self))]
        self[head] = KnownHead(request, is_large=is_large)


def request_of(line: Line, parser: httptools.HttpRequestParser, target: bytes, headers: dict[str, str]) -> Request:
    """The request whose head the parser has just read to its end."""
    if not target.startswith(b"/"):
        target = origin_form(target)
    path, _, query = target.decode("latin-1").partition("?")
    if "%" in path:
        path = unquote(path)
    request = Request(line, parser.get_method().decode("latin-1"), path, query, headers, {})
    request.keep_alive = parser.should_keep_alive()
    request.http_version = parser.get_http_version()
    request.expects_continue = headers.get("expect", "").lower() == "100-continue"
    return request


def origin_form(target: bytes) -> bytes:
    """`/path` of a target written as a whole URL, as for a proxy; anything else, such as `*`, stays as it is."""
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return target
    return (url.path or b"/") + (b"?" + url.query if url.query else b"")


def reply_head(status: int, fields: str, *, body_nbytes: int) -> bytes:
    """The head of a reply; `fields`: its headers as lines, each with its end, but for length and date."""
    global _date_text, _date_at
    now = int(time.time())
    if now != _date_at:
        _date_text, _date_at = formatdate(now, usegmt=True), now
    return f"{STATUS_LINES[status]}{fields}content-length: {body_nbytes}\r\ndate: {_date_text}\r\n\r\n".encode(
        "latin-1"
    )


def last_words(status: int) -> bytes:
    """The whole reply to what is no request: 400, 408 or 431; its connection closes."""
    reason = {400: "invalid", 408: "too_slow", 431: "too_large"}[status]
    body = f'{{"error":"{HTTPStatus(status).phrase.lower()}","reason":"{reason}"}}'
    fields = "content-type: application/json\r\nconnection: close\r\n"
    return reply_head(status, fields, body_nbytes=len(body)) + body.encode()


_date_text, _date_at = "", 0  # of the last reply: made once a second
