"""One inference request with its model and the form of its body, from its admission to its answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nomadserve_runtime.batcher import Batcher
from nomadserve_runtime.errors import Unsupported
from nomadserve_runtime.head import Head
from nomadserve_runtime.metrics import ModelMetrics
from nomadserve_runtime.rsgi import Exchange
from nomadserve_runtime.slots import Ticket
from nomadserve_runtime.wire import Encoded, ModelWire, Query
from nomadserve_runtime.wire.binary import json_nbytes_of


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A loaded model, with all that a request for it needs."""

    name: str
    wire: ModelWire
    batcher: Batcher
    metrics: ModelMetrics


class Form(Protocol):
    """How bodies and replies are written: one of the two of `wire`."""

    def decode(self, model: Model, head: Head, body: bytes | memoryview) -> Query:
        """The body as rows; raises a `Fault` where it can't be."""
        ...

    def encode(self, model: Model, query: Query, ticket: Ticket, request_id: str) -> bytes | Encoded:
        """The reply of an answered ticket."""
        ...


class PlainForm:
    """`POST /v1/inference`."""

    def decode(self, model: Model, head: Head, body: bytes | memoryview) -> Query:
        """Read a plain body."""
        if head.json_nbytes is not None and head.json_nbytes != str(len(body)):
            raise Unsupported(f"binary tensors go to `/v2/models/{model.name}/infer`")
        return model.wire.decode_plain(body)

    def encode(self, model: Model, query: Query, ticket: Ticket, request_id: str) -> bytes:
        """Write a plain reply."""
        return model.wire.encode_plain(ticket.outputs(), id=request_id, time=ticket.slot.answered_at)


class InferForm:
    """`POST /v2/models/{model}/infer`."""

    def decode(self, model: Model, head: Head, body: bytes | memoryview) -> Query:
        """Read a protocol body, whose tensors may be in binary."""
        if head.json_nbytes is None:
            return model.wire.decode_infer(body)
        return model.wire.decode_binary(body, json_nbytes=json_nbytes_of(head.json_nbytes, body_nbytes=len(body)))

    def encode(self, model: Model, query: Query, ticket: Ticket, request_id: str) -> bytes | Encoded:
        """Write a protocol reply, in binary as far as that was wished for."""
        if query.binary:
            return model.wire.encode_binary(ticket.outputs(), id=request_id, wanted=query.outputs, binary=query.binary)
        return model.wire.encode_infer(ticket.outputs(), id=request_id, wanted=query.outputs)


class Answers(Protocol):
    """What a call asks of whom it belongs to.

    Attributes:
        timeout_s: of requests that give no deadline.
    """

    timeout_s: float

    def reply(self, call: "Call") -> None:
        """The rows of a call are answered, or it failed."""
        ...


PLAIN = PlainForm()
INFER = InferForm()


class Call(Ticket):
    """One request with whole body, until it is answered.

    Attributes:
        arrived_at: monotonic seconds.
    """

    __slots__ = ("arrived_at", "exchange", "form", "head", "inference", "model", "query")

    def __init__(
        self,
        inference: "Answers",
        model: Model,
        form: Form,
        head: Head,
        query: Query,
        exchange: Exchange,
        arrived_at: float,
    ) -> None:
        timeout_s = min(query.timeout_s, head.timeout_s, inference.timeout_s)
        super().__init__(query.rows, deadline_at=arrived_at + timeout_s, priority=query.priority, shapes=query.shapes)
        self.inference = inference
        self.model = model
        self.form = form
        self.head = head
        self.query = query
        self.exchange = exchange
        self.arrived_at = arrived_at

    def answered(self) -> None:
        """Reply."""
        self.inference.reply(self)

    def hang_up(self) -> None:
        """The client has gone."""
        self.model.batcher.hang_up(self)


class NotHereYet(Exception):
    """Some of a body has still to come."""


class DirectCall(Call):
    """One that is admitted before its body was read: its rows come off the socket, straight into the slot."""

    __slots__ = ()

    def write(self, inputs: Sequence[np.ndarray]) -> None:
        """Read them, or raise `NotHereYet`. When they move from one slot to another, `inputs` has them."""
        if inputs:
            super().write(inputs)
            return
        [target] = self.slot.inputs
        rows = target[self.start : self.start + self.rows]
        if not self.exchange.read_end(rows.reshape(-1).view(np.uint8).data):
            raise NotHereYet
