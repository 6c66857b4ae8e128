"""HTTP/1.1 on one connection: bytes in, requests out, replies back; parsed by llhttp (httptools), kept in order here.

Everything happens on the event loop, in the turn in which the bytes come: no thread, no hand-over. That costs a third
of what a server with threads of its own does, whose every request crosses the interpreter's lock twice.
"""

import asyncio
import logging
import time
from collections import deque
from typing import Protocol

import httptools

from nomadserve_runtime.errors import TooSlow
from nomadserve_runtime.heads import HEAD_NBYTES_MAX as KNOWN_NBYTES_MAX
from nomadserve_runtime.heads import KnownHeads, last_words, reply_head, request_of
from nomadserve_runtime.request import Request, finish
from nomadserve_runtime.rest import REST_NBYTES_MIN, WORTHWHILE_PART, Rest, Source
from nomadserve_runtime.rsgi import Answer

log = logging.getLogger("nomadserve.http")

HEAD_NBYTES_MAX = 64 * 1024
# No more heads are learned from a client whose heads were all new, this often one after the other.
MISSES_MAX = 16

# Of a client that is held back, so much is kept; then nothing more is read.
KEPT_NBYTES_MAX = 16 * 1024

HEAD_S_MAX = 30.0
BODY_S_MAX = 120.0


class Owner(Protocol):
    """What a connection knows of its server.

    Attributes:
        answer: the application.
        connections: those that are open; each adds and removes itself.
        heads: that came before.
        is_stopping: every reply is the last one of its connection.
    """

    answer: Answer
    connections: "set[Connection]"
    heads: KnownHeads
    is_stopping: bool


class HeadTooLong(Exception):
    """Raised into the parser by its own callback."""


class Connection(asyncio.Protocol):
    """One client's connection. Requests are answered one after the other, in the order in which they came."""

    def __init__(self, owner: Owner) -> None:
        self.is_lost = False
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._paused: set[str] = set()
        self._target = b""
        self._headers: dict[str, str] = {}
        self._head_nbytes = 0
        self._head_since = 0.0  # 0.0 where no head is under way
        self._head = b""  # of the large request that is being received, where it may be remembered
        self._receiving: Request | None = None
        self._answering: Request | None = None
        self._waiting: deque[Request] = deque()
        self._rest: Rest | None = None
        self._begun: Request | None = None  # large, its head came before, and the application takes it up now
        self._task: asyncio.Task[None] | None = None
        self._misses = 0
        self._is_parsing = False
        self._is_held = False
        self._kept = b""  # what came while it was held

    # -- what the transport calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        assert isinstance(transport, Source)
        self._transport = transport
        self._owner.connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        """The client has gone, or was sent away."""
        self.is_lost = True
        self._owner.connections.discard(self)
        for request in (self._answering, *self._waiting):
            if request is not None:
                request.lose()
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """Take the request up, where its head came before, or parse: then all happens in the parser's callbacks."""
        if self._is_held:
            self._kept += data
            if len(self._kept) > KEPT_NBYTES_MAX:
                self.pause("held")
            return
        is_between = self._answering is None and self._receiving is None and not self._head_since
        if is_between:
            end = data.find(b"\r\n\r\n", 0, KNOWN_NBYTES_MAX) + 4
            known = self._owner.heads.get(data[:end])
            if known is not None:
                rest_nbytes = known.body_nbytes - len(data) + end
                if rest_nbytes == 0 or (known.is_large and rest_nbytes >= REST_NBYTES_MIN):
                    self._misses = 0
                    request = Request(
                        self, known.method, known.path, known.query_string, known.headers, known.notes, data[end:]
                    )
                    if rest_nbytes:
                        self._begin_large(request)
                    else:
                        self._begin(request)
                    return
        self._is_parsing = True
        try:
            self._parser.feed_data(data)
            if self._receiving is not None and self._receiving.is_answered:
                self._throw_rest_away(self._receiving)
            if is_between and self._misses < MISSES_MAX:
                self._learn(data)
        except httptools.HttpParserUpgrade:  # not spoken here: the request is answered as it is, and is the last one
            for under_way in (self._answering, *self._waiting):
                if under_way is not None:
                    under_way.keep_alive = False
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, HeadTooLong):
                log.error("a request failed", exc_info=error.__context__)
            self._send_away(431)
        except httptools.HttpParserError:
            self._send_away(400)
        finally:
            self._is_parsing = False

    # -- what the parser calls ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        self._target, self._headers = b"", {}
        self._head, self._head_nbytes = b"", 0
        self._head_since = time.monotonic()

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._target += url
        self._note_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; behind a chunked body, a trailer, which nobody asks for."""
        if self._receiving is not None:
            return
        self._note_head(len(name) + len(value))
        key, text = name.lower().decode("latin-1"), value.decode("latin-1")
        headers = self._headers
        headers[key] = text if key not in headers else f"{headers[key]}, {text}"

    def on_headers_complete(self) -> None:
        """The head is whole: the application begins, whatever there is of the body."""
        self._head_since = 0.0
        self._receiving = request = request_of(self, self._parser, self._target, self._headers)
        if self._answering is None:
            self._begin(request)
        else:
            self._waiting.append(request)
            self.pause("waiting")

    def on_body(self, piece: bytes) -> None:
        """A piece of a body."""
        assert self._receiving is not None
        self._receiving.add(piece)

    def on_message_complete(self) -> None:
        """The request is whole."""
        request, self._receiving = self._receiving, None
        assert request is not None
        request.end()
        if request.is_answered:
            self._finish(request)

    def _note_head(self, nbytes: int) -> None:
        self._head_nbytes += nbytes
        if self._head_nbytes > HEAD_NBYTES_MAX:
            raise HeadTooLong

    # -- what requests call ---------------------------------------------------------------------------------------

    def want_body(self, request: Request, *, whole: bool) -> None:
        """Somebody reads the body of `request` now."""
        is_large = request is self._receiving and request.rest_nbytes >= REST_NBYTES_MIN
        if whole and is_large and self._rest is None:
            if self._head and not request.is_endless:
                self._owner.heads.learn(self._head, request, is_large=True)
            self._read_rest(Rest(self, request.rest_nbytes, request.keep_rest()))
        if request.expects_continue and request.http_version != "1.0":
            request.expects_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.resume("ahead")

    def send(self, request: Request, status: int, fields: str, body: bytes) -> None:
        """Write a reply; the next request's turn comes when this one has been received to its end.

        fields: its headers as lines, each with its end; the length and the date are added here.
        """
        if self.is_lost:
            return
        if self._owner.is_stopping or not request.keep_alive or request.http_version == "1.0":
            fields = self._with_connection(request, fields)
        head = reply_head(status, fields, body_nbytes=len(body))
        self._transport.write(head if request.method == "HEAD" else head + body)
        if request.is_whole:
            if request.keep_alive and not self._waiting:
                self._answering = None
            else:
                self._finish(request)
        elif request.expects_continue or status == TooSlow.status:
            self._transport.close()  # its body may never come
        else:
            self.resume("ahead")
            if not self._is_parsing:  # the parser may have more of the body at hand
                self._throw_rest_away(request)

    def pause(self, reason: str) -> None:
        """Read nothing from the socket until every reason has gone."""
        if not self._paused and not self._transport.is_closing():
            self._transport.pause_reading()
        self._paused.add(reason)

    def resume(self, reason: str) -> None:
        """A reason not to read has gone."""
        if reason in self._paused:
            self._paused.discard(reason)
            if not self._paused and not self._transport.is_closing():
                self._transport.resume_reading()

    def hold(self) -> None:
        """Look at nothing that comes from now on.

        A client sends one more request, and waits: to keep that costs less than to stop reading and to start again.
        """
        self._is_held = True

    def let_go(self) -> None:
        """Go on with what came since."""
        self._is_held = False
        self.resume("held")
        kept, self._kept = self._kept, b""
        if kept and not self.is_lost:
            self.data_received(kept)

    def abort(self) -> None:
        """Close the connection without another word."""
        self._transport.abort()

    def address(self, end: str) -> str:
        """`host:port` of the "peername" or the "sockname"."""
        host, port, *_ = self._transport.get_extra_info(end) or ("", 0)
        return f"{host}:{port}"

    # -- the rest of a large body ---------------------------------------------------------------------------------

    def has_more(self, request: Request) -> bool:
        """Whether much of the rest of a large body has come, so that `read_end` is worth while."""
        return request is self._begun and self._transport.waiting_nbytes() * WORTHWHILE_PART >= request.rest_nbytes

    def read_end(self, request: Request, memory: memoryview) -> bool:
        """Read the rest of a large body into memory of its size; False where not all of it has come."""
        nbytes = self._transport.read_into(memory)
        if nbytes == len(memory):
            self.on_message_complete()
            return True
        kept = request.keep_rest()
        kept[:nbytes] = memory[:nbytes]
        self._read_rest(Rest(self, len(memory) - nbytes, kept[nbytes:]))
        return False

    def rest_is_here(self) -> None:
        """The body that is being received is whole; the next request meets a parser that never saw it."""
        self._rest = None
        self._transport.set_protocol(self)
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_complete()

    def _read_rest(self, rest: Rest) -> None:
        self._rest = rest
        self._transport.set_protocol(rest)

    def _throw_rest_away(self, request: Request) -> None:
        """What still comes of the body of a request that was answered."""
        if request is not self._receiving or self.is_lost:
            return
        left = request.rest_nbytes
        if self._rest is not None:
            self._rest.throw_away()
        elif left >= REST_NBYTES_MIN and not request.is_endless:
            if request is self._begun:
                left -= self._transport.throw_away(left)
            if left:
                self._read_rest(Rest(self, left, None))
            else:
                self.on_message_complete()

    # -- what the server calls ------------------------------------------------------------------------------------

    def close_when_idle(self) -> None:
        """Close as soon as every request that has come is answered."""
        if self._answering is None:
            self._transport.close()

    def check_pace(self, now: float) -> None:
        """Send away whoever takes too long over a head or a body."""
        if self._head_since and now - self._head_since > HEAD_S_MAX:
            self._send_away(408)
        request = self._receiving
        if request is not None and now - request.received_at > BODY_S_MAX:
            if request.is_answered:
                self._transport.abort()
            else:
                request.fail(TooSlow(f"the body did not arrive within {BODY_S_MAX:g} s"))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _with_connection(self, request: Request, fields: str) -> str:
        """Say in the reply whether the connection stays open, where that does not go without saying."""
        if self._owner.is_stopping:
            request.keep_alive = False
        return f"{fields}connection: {'keep-alive' if request.keep_alive else 'close'}\r\n"

    def _learn(self, data: bytes) -> None:
        """Remember the head of the request that `data` was, if it was a whole one and its head says all of its length.

        It is still being answered here: one that was refused or failed is not worth remembering.
        """
        request = self._answering
        end = data.find(b"\r\n\r\n", 0, KNOWN_NBYTES_MAX) + 4
        if request is None or not request.is_repeatable or end < len(b"\r\n\r\n"):
            return
        nbytes = int(request.headers.get("content-length", -1))
        if request.is_whole and nbytes == len(data) - end:
            self._misses += 1
            self._owner.heads.learn(data[:end], request, is_large=False)
        elif request is self._receiving and nbytes > len(data) - end:
            self._misses += 1
            self._head = data[:end]

    def _begin_large(self, request: Request) -> None:
        """Take up a request whose head came before, and whose body was read whole then; the parser sees none of it."""
        request.is_whole = False
        self._receiving = self._begun = request
        self._begin(request)
        self._begun = None
        if self._receiving is request and self._rest is None:
            self._read_rest(Rest(self, request.rest_nbytes, request.keep_rest()))

    def _begin(self, request: Request) -> None:
        self._answering = request
        try:
            answer = self._owner.answer(request, request)
        except Exception:
            log.exception("a request failed")
            request.response_bytes(500, [], b"")
            return
        if answer is not None:
            self._task = asyncio.Task(finish(request, answer), loop=self._loop)

    def _finish(self, request: Request) -> None:
        """A request is received and answered."""
        self._answering = None
        if not request.keep_alive:
            self._transport.close()
        elif self._waiting:
            following = self._waiting.popleft()
            if not self._waiting:
                self.resume("waiting")
            self._answering = following
            # Not from here: a long row of refused requests would nest as deeply.
            self._loop.call_soon(self._begin, following)

    def _send_away(self, status: int) -> None:
        """Answer what is no request, and close; whole requests that came before it are answered first."""
        if self._answering is not None and self._answering.is_whole:
            whole = [request for request in self._waiting if request.is_whole]
            self._waiting = deque(whole)
            (whole[-1] if whole else self._answering).keep_alive = False
            self.pause("broken")
            return
        if self._answering is not None:
            was_answered, self._answering.is_answered = self._answering.is_answered, True
            self._answering.lose()
        else:
            was_answered = False
        if not was_answered and not self._transport.is_closing():
            self._transport.write(last_words(status))
        self._transport.close()
