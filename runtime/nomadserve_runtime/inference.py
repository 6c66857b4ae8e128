"""One inference request from the first byte to the last, without a framework: ASGI messages in, ASGI messages out.

head → refuse at once where the queue is full → body → rows in a slot → wait → reply → give the rows up
"""

import asyncio
import itertools
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from nomadserve_runtime.batcher import Batcher
from nomadserve_runtime.errors import BadRequest, Fault, HungUp, NotFound, Refused, TooLarge, Unsupported
from nomadserve_runtime.lifecycle import Lifecycle, Stage
from nomadserve_runtime.metrics import ModelMetrics
from nomadserve_runtime.slots import Ticket
from nomadserve_runtime.wire import ModelWire, Query, model_named_in

log = logging.getLogger("nomadserve.inference")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

# Forms are what `curl -d` says when nobody tells it better; what it sends is the JSON that it was given.
JSON_TYPES = (b"application/json", b"application/x-www-form-urlencoded")

# A body that nobody will read is read off the socket all the same, up to here, after the reply: most clients send all
# before they listen, and would see a broken pipe in the place of the reply.
DISCARD_NBYTES_MAX = 64 * 1024 * 1024

# Most requests are answered before it pays to look whether their client is still there.
HANG_UP_WATCH_AFTER_S = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A loaded model, with all that a request for it needs."""

    name: str
    wire: ModelWire
    batcher: Batcher
    metrics: ModelMetrics


class Form(Protocol):
    """How bodies and replies are written: one of the two of `wire`."""

    def decode(self, model: Model, body: bytes) -> Query:
        """The body as rows; raises a `Fault` where it can't be."""
        ...

    def encode(self, model: Model, query: Query, ticket: Ticket, request_id: str) -> bytes:
        """The reply of an answered ticket."""
        ...


class PlainForm:
    """`POST /v1/inference`."""

    def decode(self, model: Model, body: bytes) -> Query:
        """Read a plain body."""
        return model.wire.decode_plain(body)

    def encode(self, model: Model, query: Query, ticket: Ticket, request_id: str) -> bytes:
        """Write a plain reply."""
        return model.wire.encode_plain(ticket.outputs(), id=request_id)


class InferForm:
    """`POST /v2/models/{model}/infer`."""

    def decode(self, model: Model, body: bytes) -> Query:
        """Read a protocol body."""
        return model.wire.decode_infer(body)

    def encode(self, model: Model, query: Query, ticket: Ticket, request_id: str) -> bytes:
        """Write a protocol reply."""
        return model.wire.encode_infer(ticket.outputs(), id=request_id, wanted=query.outputs)


PLAIN = PlainForm()
INFER = InferForm()


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back: status, headers beside the usual ones, body."""

    status: int
    headers: Headers
    body: bytes


class Inference:
    """Answers inference requests for all models of the process.

    version: of the service; every reply carries it.  timeout_s: of requests that give no deadline.
    """

    def __init__(self, models: Mapping[str, Model], *, version: str, timeout_s: float, lifecycle: Lifecycle) -> None:
        self._models = models
        self._only = next(iter(models.values())) if len(models) == 1 else None
        self._timeout_s = timeout_s
        self._lifecycle = lifecycle
        self._id_prefix = secrets.token_hex(6) + "-"
        self._id_numbers = itertools.count(1)
        self._json_headers: Headers = [
            (b"content-type", b"application/json"),
            (b"x-nomadserve-version", version.encode()),
        ]

    async def answer_plain(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /v1/inference`: the body names the model where there are several."""
        if self._only is not None:
            await self.answer(self._only, PLAIN, scope, receive, send)
            return
        try:
            body = await _read_body(scope, receive, max(model.wire.body_nbytes_max for model in self._models.values()))
            model = self._model_named_in(body)
        except Fault as fault:
            await self._send(send, _fault_reply(fault))
            return
        await self._reply(model, PLAIN, body, receive, send, arrived_at=time.monotonic())

    async def answer(self, model: Model, form: Form, scope: Scope, receive: Receive, send: Send) -> None:
        """One request for `model`, its body still unread."""
        arrived_at = time.monotonic()
        try:
            # Before the body is read: a refusal must cost next to nothing.
            model.batcher.check_open()
            body = await _read_body(scope, receive, model.wire.body_nbytes_max)
        except Fault as fault:
            _count(model, fault)
            await self._send(send, _fault_reply(fault))
            await _discard(receive)
            return
        await self._reply(model, form, body, receive, send, arrived_at=arrived_at)

    async def _reply(
        self, model: Model, form: Form, body: bytes, receive: Receive, send: Send, *, arrived_at: float
    ) -> None:
        try:
            reply = Reply(200, [], await self._infer(model, form, body, receive))
            model.metrics.request_seconds.observe(time.monotonic() - arrived_at)
            model.metrics.outcome["ok"].inc()
        except Fault as fault:
            _count(model, fault)
            reply = _fault_reply(fault)
        except Exception:  # our bug: it fails this request, and the log says where
            log.exception("a request failed")
            bug = Fault("internal error")
            _count(model, bug)
            reply = _fault_reply(bug)
        await self._send(send, reply)

    async def _infer(self, model: Model, form: Form, body: bytes, receive: Receive) -> bytes:
        query = form.decode(model, body)
        timeout_s = min(query.timeout_s, self._timeout_s)
        deadline_at = time.monotonic() + timeout_s if timeout_s < math.inf else math.inf
        ticket = model.batcher.admit(query.inputs, rows=query.rows, deadline_at=deadline_at)
        try:
            with HangUpWatch(model.batcher, ticket, receive):
                await ticket.done
            reply = form.encode(model, query, ticket, query.id or self._new_id())
            model.metrics.rows.inc(query.rows)
            return reply
        finally:
            model.batcher.give_up(ticket)

    def _new_id(self) -> str:
        """Unique over all replicas, and cheaper than asking the system for random bytes each time."""
        return f"{self._id_prefix}{next(self._id_numbers):x}"

    def _model_named_in(self, body: bytes) -> Model:
        name = model_named_in(body)
        names = ", ".join(f"`{known}`" for known in self._models)
        if not name:
            raise BadRequest(f"several models are served here, so `model` must name one of {names}")
        if name not in self._models:
            raise NotFound(f"no model `{name}` is served here, but {names}")
        return self._models[name]

    async def _send(self, send: Send, reply: Reply) -> None:
        headers = [*self._json_headers, *reply.headers, (b"content-length", b"%d" % len(reply.body))]
        if self._lifecycle.stage is not Stage.SERVING:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


class HangUpWatch:
    """While entered, fails the ticket with `HungUp` when the client closes the connection."""

    def __init__(self, batcher: Batcher, ticket: Ticket, receive: Receive) -> None:
        self._batcher = batcher
        self._ticket = ticket
        self._receive = receive
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(HANG_UP_WATCH_AFTER_S, self._start)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        # The body was read to its end, so the next message can only be the end of the connection.
        await self._receive()
        self._batcher.fail(self._ticket, HungUp())


async def _read_body(scope: Scope, receive: Receive, nbytes_max: int) -> bytes:
    _check_head(dict(scope["headers"]), nbytes_max)
    chunks: list[bytes] = []
    nbytes = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise HungUp
        chunk = message.get("body", b"")
        nbytes += len(chunk)
        if nbytes > nbytes_max:
            raise _too_large(nbytes_max)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check_head(headers: Mapping[bytes, bytes], nbytes_max: int) -> None:
    """Refuse by the head alone what the body could only confirm."""
    if int(headers.get(b"content-length", b"0")) > nbytes_max:
        raise _too_large(nbytes_max)
    content_type = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if content_type not in JSON_TYPES:
        raise Unsupported(f"the body is {content_type.decode('latin-1')}: send `content-type: application/json`")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise Unsupported("compressed bodies are not read yet")
    if headers.get(b"inference-header-content-length", headers.get(b"content-length")) != headers.get(
        b"content-length"
    ):
        raise Unsupported("binary tensors are not read yet: send `data` in the JSON")


def _too_large(nbytes_max: int) -> TooLarge:
    return TooLarge(f"the body is longer than any that fits this model: {nbytes_max} bytes")


async def _discard(receive: Receive) -> None:
    nbytes = 0
    while nbytes < DISCARD_NBYTES_MAX:
        message = await receive()
        nbytes += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


def _count(model: Model, fault: Fault) -> None:
    model.metrics.outcome[fault.outcome].inc()
    if isinstance(fault, Refused):
        model.metrics.refused[fault.reason].inc()


def _fault_reply(fault: Fault) -> Reply:
    content: dict[str, Any] = {"error": fault.message, "reason": fault.reason}
    headers: Headers = []
    if isinstance(fault, Refused):
        content["retry_after_ms"] = math.ceil(fault.retry_after_s * 1000)
        headers = [(b"retry-after", b"%d" % max(1, math.ceil(fault.retry_after_s)))]
    return Reply(fault.status, headers, msgspec.json.encode(content))
