"""One inference request from the first byte to the last, without a framework.

head → refuse at once where the queue is full → body → rows in a slot → wait → reply
"""

import itertools
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from nomadserve_runtime.calls import INFER, PLAIN, Call, DirectCall, Form, Model, NotHereYet
from nomadserve_runtime.errors import BadRequest, Fault, HungUp, NotFound, Refused
from nomadserve_runtime.head import BINARY_TYPE, Head, read_head, too_large
from nomadserve_runtime.interpreter import keeping_lock
from nomadserve_runtime.lifecycle import Lifecycle, Stage
from nomadserve_runtime.logs import access_log, fields
from nomadserve_runtime.refusal import Doorman
from nomadserve_runtime.rsgi import Exchange, ReplyHeaders, Scope
from nomadserve_runtime.turns import Turns
from nomadserve_runtime.wire import ENVELOPE_NBYTES_MAX, Encoded, model_named_in
from nomadserve_runtime.wire.binary import HEADER
from nomadserve_runtime.wire.compression import COMPRESS_NBYTES_MIN, accepted_coding, compress, decompress

log = logging.getLogger("nomadserve.inference")


# A body of JSON that takes as long to read as a dozen small requests take in all.
LONG_NBYTES_MIN = 256 * 1024

# Of a request that was refused before its head was read.
NO_HEAD = Head(math.inf, math.inf)


class Inference:
    """Answers inference requests for all models of the process. Build it, and call it, on the event loop.

    models: by name; tell `refresh` when they change.  version: of the service; every reply carries it.
    timeout_s: of requests that give no deadline.  is_logged: whether the access log gets a line for each.

    Attributes:
        on_idle: called when the last one who waited for a model's engine in its thread has its reply.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        version: str,
        timeout_s: float,
        lifecycle: Lifecycle,
        is_logged: bool = False,
    ) -> None:
        self._models = models
        self.refresh()
        self._is_logged = is_logged
        self.timeout_s = timeout_s
        self._lifecycle = lifecycle
        # Unique over all replicas, and cheaper than asking the system for random bytes each time.
        self._id_prefix = secrets.token_hex(6) + "-"
        self._id_numbers = itertools.count(1)
        self._json_headers: ReplyHeaders = [("content-type", "application/json"), ("x-nomadserve-version", version)]
        self._json_fields = "".join([f"{name}: {value}\r\n" for name, value in self._json_headers])
        self._turns = Turns()
        self._doorman = Doorman(self._json_headers)
        self.on_idle: Callable[[], None] = _nothing

    def refresh(self) -> None:
        """Models were loaded or unloaded."""
        self._only = next(iter(self._models.values())) if len(self._models) == 1 else None
        self._body_nbytes_max = max(
            [ENVELOPE_NBYTES_MAX, *(model.wire.body_nbytes_max for model in self._models.values())]
        )

    def answer_plain(self, scope: Scope, exchange: Exchange) -> Awaitable[None] | None:
        """`POST /v1/inference`: the body names the model where there are several."""
        if self._only is not None:
            return self.answer(self._only, PLAIN, scope, exchange)
        return self._answer_named(scope, exchange)

    def answer(self, model: Model, form: Form, scope: Scope, exchange: Exchange) -> Awaitable[None] | None:
        """One request for `model`. Where its body is there already, nothing has to be awaited: that costs no task."""
        arrived_at = time.monotonic()
        refused = model.batcher.refusal()
        if refused is not None:  # before the head is looked at: a refusal must cost next to nothing
            model.metrics.outcome["refused"].value += 1
            model.metrics.refused[refused.reason].value += 1
            if self._is_logged:
                self._log(model.name, refused.status, refused.reason, "", NO_HEAD, arrived_at)
            self._doorman.refuse(refused, exchange, is_leaving=self._is_leaving)
            return None
        nbytes_max = model.wire.body_nbytes_max
        head: Head | None = scope.notes.get(nbytes_max)
        if head is None:
            try:
                head = scope.notes[nbytes_max] = read_head(scope.headers, nbytes_max=nbytes_max)
            except Fault as fault:
                self._fail(fault, exchange, model, NO_HEAD, arrived_at)
                return None
        body = exchange.take_whole()
        if body is None:
            if form is INFER and self._admit_directly(model, head, exchange, arrived_at):
                return None
            model.batcher.reading += 1
            return self._answer_when_read(model, form, head, exchange, arrived_at)
        self._admit(model, form, head, body, exchange, arrived_at)
        return None

    async def _answer_when_read(
        self, model: Model, form: Form, head: Head, exchange: Exchange, arrived_at: float
    ) -> None:
        try:
            body = await _receive(exchange, head, model.wire.body_nbytes_max)
            await self._turn_to_read(body, head)
        except Fault as fault:
            self._fail(fault, exchange, model, head, arrived_at)
            return
        finally:
            model.batcher.reading -= 1
        self._admit(model, form, head, body, exchange, arrived_at)

    async def _turn_to_read(self, body: bytes | memoryview, head: Head) -> None:
        """Return when a body may be read that takes long."""
        if head.coding or (len(body) >= LONG_NBYTES_MIN and head.json_nbytes is None):
            await self._turns()

    async def _answer_named(self, scope: Scope, exchange: Exchange) -> None:
        arrived_at = time.monotonic()
        head = NO_HEAD
        try:
            head = read_head(scope.headers, nbytes_max=self._body_nbytes_max)
            body = await _receive(exchange, head, self._body_nbytes_max)
            await self._turn_to_read(body, head)
            if head.coding:
                body = decompress(body, head.coding, nbytes_max=self._body_nbytes_max)
            model = self._model_named_in(body)
        except Fault as fault:
            self._fail(fault, exchange, None, head, arrived_at)
            return
        self._admit(model, PLAIN, msgspec.structs.replace(head, coding=""), body, exchange, arrived_at)

    def _admit(
        self, model: Model, form: Form, head: Head, body: bytes | memoryview, exchange: Exchange, arrived_at: float
    ) -> None:
        """The body is whole: its rows get a place, and the reply is written when they are answered."""
        try:
            if head.coding:
                body = decompress(body, head.coding, nbytes_max=model.wire.body_nbytes_max)
            if len(body) < LONG_NBYTES_MIN:
                query = form.decode(model, head, body)
            else:
                with keeping_lock():
                    query = form.decode(model, head, body)
            call = Call(self, model, form, head, query, exchange, arrived_at)
            model.batcher.admit(call, query.inputs)
        except Exception as error:
            self._fail_by(error, exchange, model, head, arrived_at)
            return
        exchange.on_hang_up(call.hang_up)

    def _admit_directly(self, model: Model, head: Head, exchange: Exchange, arrived_at: float) -> bool:
        """Admit a request by the beginning of its body; False where that is not enough, and the body is to be read."""
        beginning = exchange.begun() if head.json_nbytes is not None and not head.coding else None
        if beginning is None:
            return False
        query = model.wire.begin_binary(beginning, head.json_nbytes, body_nbytes=int(head.nbytes))
        if query is None:
            return False
        call = DirectCall(self, model, INFER, head, query, exchange, arrived_at)
        try:
            model.batcher.admit(call, ())
        except NotHereYet:
            return False
        except Exception as error:
            self._fail_by(error, exchange, model, head, arrived_at)
            return True
        exchange.on_hang_up(call.hang_up)
        return True

    def reply(self, call: Call) -> None:
        """The rows of a call are answered, or it failed."""
        model, query, arrived_at = call.model, call.query, call.arrived_at
        if call.fault is not None:
            self._fail(call.fault, call.exchange, model, call.head, arrived_at)
            return
        request_id = query.id or f"{self._id_prefix}{next(self._id_numbers):x}"
        try:
            content = call.form.encode(model, query, call, request_id)
            replied_at = time.monotonic()
            self._send(content, call, replied_at - arrived_at)
        except Exception as error:
            self._fail_by(error, call.exchange, model, call.head, arrived_at)
            return
        slot, metrics = call.slot, model.metrics
        metrics.outcome["ok"].value += 1
        metrics.rows.value += query.rows
        metrics.stages.add((arrived_at, call.admitted_at, slot.started_at, slot.ended_at, replied_at))
        if self._is_logged:
            self._log(model.name, 200, "ok", request_id, call.head, arrived_at)
        if not (model.batcher.in_flight or model.batcher.calibration.is_inline):
            self.on_idle()

    def _fail_by(self, error: Exception, exchange: Exchange, model: Model, head: Head, arrived_at: float) -> None:
        if isinstance(error, Fault):
            self._fail(error, exchange, model, head, arrived_at)
            return
        # Our bug: it fails this request, and the log says where.
        log.error("a request failed", exc_info=error, extra=fields(model=model.name, traceparent=head.traceparent))
        self._fail(Fault("internal error"), exchange, model, head, arrived_at)

    @property
    def _is_leaving(self) -> bool:
        return self._lifecycle.stage is not Stage.SERVING

    def _send(self, content: bytes | Encoded, call: Call, total_s: float) -> None:
        """Send the reply of a call; how long each stage took, in its head."""
        slot, head = call.slot, call.head
        fields = (
            f"{self._json_fields}server-timing: queue;dur={(slot.started_at - call.admitted_at) * 1e3:.3f}, "
            f"engine;dur={(slot.ended_at - slot.started_at) * 1e3:.3f}, total;dur={total_s * 1e3:.3f}"
        )
        if call.answer_by < math.inf:  # it met a backlog
            fields += f", predicted;dur={(call.answer_by - call.arrived_at) * 1e3:.3f}"
        fields += "\r\n"
        if isinstance(content, Encoded):
            fields = fields.replace("application/json", BINARY_TYPE, 1) + f"{HEADER}: {content.json_nbytes}\r\n"
            content = content.body
        if head.traceparent:
            fields += f"traceparent: {head.traceparent}\r\n"
        if head.accept_encoding and len(content) >= COMPRESS_NBYTES_MIN:
            # In the coding that the client takes, where that pays.
            coding = accepted_coding(head.accept_encoding)
            if coding:
                fields += f"content-encoding: {coding}\r\nvary: accept-encoding\r\n"
                content = compress(content, coding)
        call.exchange.response_fields(200, fields, content, is_last=self._lifecycle.stage is not Stage.SERVING)

    def _fail(self, fault: Fault, exchange: Exchange, model: Model | None, head: Head, arrived_at: float) -> None:
        """Count it, say it, log it. `model`: None where the request names none that is served."""
        if model is not None:
            _count(model, fault)
        content: dict[str, Any] = {"error": fault.message, "reason": fault.reason}
        timing = f"total;dur={(time.monotonic() - arrived_at) * 1e3:.3f}"
        headers = [*self._json_headers, ("server-timing", timing), *fault.headers]
        if isinstance(fault, Refused):
            content["retry_after_ms"] = math.ceil(fault.retry_after_s * 1000)
            headers.append(("retry-after", str(max(1, math.ceil(fault.retry_after_s)))))
        if head.traceparent:
            headers.append(("traceparent", head.traceparent))
        if self._is_leaving:
            headers.append(("connection", "close"))
        exchange.response_bytes(fault.status, headers, msgspec.json.encode(content))
        if self._is_logged:
            self._log(model.name if model else "", fault.status, fault.reason, "", head, arrived_at)

    def _log(self, model: str, status: int, outcome: str, request_id: str, head: Head, arrived_at: float) -> None:
        seconds = round(time.monotonic() - arrived_at, 6)
        access_log.info(
            "%d %s",
            status,
            outcome,
            extra=fields(
                model=model, status=status, seconds=seconds, request_id=request_id, traceparent=head.traceparent
            ),
        )

    def _model_named_in(self, body: bytes | memoryview) -> Model:
        if not self._models:
            raise NotFound("no model is loaded")
        name = model_named_in(body)
        names = ", ".join(f"`{known}`" for known in self._models)
        if not name:
            raise BadRequest(f"several models are served here, so `model` must name one of {names}")
        if name not in self._models:
            raise NotFound(f"no model `{name}` is served here, but {names}")
        return self._models[name]


async def _receive(exchange: Exchange, head: Head, nbytes_max: int) -> bytes | memoryview:
    try:
        if head.nbytes <= nbytes_max:
            return await exchange()
        pieces = []
        nbytes = 0
        async for piece in exchange:
            nbytes += len(piece)
            if nbytes > nbytes_max:
                raise too_large(nbytes_max)
            pieces.append(piece)
        return b"".join(pieces)
    except ConnectionError:
        raise HungUp from None


def _count(model: Model, fault: Fault) -> None:
    model.metrics.outcome[fault.outcome].inc()
    if isinstance(fault, Refused):
        model.metrics.refused[fault.reason].inc()


def _nothing() -> None:
    """Where nobody wants to know."""
