"""A client that speaks HTTP to an application in the same process, over a connection without a socket."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nomadserve_runtime.app import App, Service
from nomadserve_runtime.batcher import Batcher
from nomadserve_runtime.calls import Model
from nomadserve_runtime.engine import Engine
from nomadserve_runtime.lifecycle import Lifecycle
from nomadserve_runtime.metrics import Series
from nomadserve_runtime.repository import Repository
from nomadserve_runtime.rest import Rest, Source
from nomadserve_runtime.server import Server
from nomadserve_runtime.wire import ModelWire


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def content(self) -> Any:
        return msgspec.json.decode(self.body)


class Wire(Source):
    """A transport without a socket: what the connection writes is there to be read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False
        self.is_paused = False
        self.came = asyncio.Event()
        self.protocol: asyncio.BaseProtocol | None = None
        self.waiting = bytearray()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    def feed(self, data: bytes) -> None:
        """What came off the socket, to whom it belongs now."""
        while data:
            protocol = self.get_protocol()
            if isinstance(protocol, Rest):
                nbytes = min(protocol.left, len(data))
                if protocol.is_kept:
                    protocol.get_buffer(-1)[:nbytes] = data[:nbytes]
                protocol.buffer_updated(nbytes)
                data = data[nbytes:]
            else:
                assert isinstance(protocol, asyncio.Protocol)
                protocol.data_received(data)
                return

    def waiting_nbytes(self) -> int:
        return len(self.waiting)

    def read_into(self, memory: memoryview) -> int:
        nbytes = min(len(memory), len(self.waiting))
        memory[:nbytes] = self.waiting[:nbytes]
        del self.waiting[:nbytes]
        return nbytes

    def throw_away(self, nbytes: int) -> int:
        thrown = min(nbytes, len(self.waiting))
        del self.waiting[:thrown]
        return thrown

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        self.came.set()

    def close(self) -> None:
        self.is_closed = True
        self.came.set()

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 80 if name == "sockname" else 1)

    def take_answer(self) -> Answer | None:
        """The next whole reply, or None where it is not whole yet."""
        head, found, rest = bytes(self.written).partition(b"\r\n\r\n")
        if not found:
            return None
        status, *fields = head.decode().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        nbytes = int(headers.get("content-length", 0))
        if len(rest) < nbytes:
            return None
        self.written = bytearray(rest[nbytes:])
        return Answer(int(status.split()[1]), headers, rest[:nbytes])


class Client:
    """Sends requests, each over a connection of its own; `hang_up` closes those under way."""

    def __init__(self, app: App) -> None:
        self._server = Server(app)

    def hang_up(self) -> None:
        for connection in list(self._server.connections):
            connection.connection_lost(None)

    def connect(self) -> tuple[asyncio.Protocol, Wire]:
        """A connection to speak to by hand."""
        connection, wire = self._server.connect(), Wire()
        assert isinstance(connection, asyncio.Protocol)
        wire.set_protocol(connection)
        connection.connection_made(wire)
        return connection, wire

    async def __call__(
        self, method: str, path: str, body: Any = b"", *, headers: dict[str, str] | None = None, chunks: int = 1
    ) -> Answer:
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        connection, wire = self.connect()
        for piece in pieces_of(method, path, raw, headers or {}, chunks):
            wire.feed(piece)
            await asyncio.sleep(0)
        while (answer := wire.take_answer()) is None:
            if connection not in self._server.connections:
                return Answer()
            wire.came.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wire.came.wait(), 0.005)
        connection.connection_lost(None)
        return answer


def pieces_of(method: str, path: str, raw: bytes, headers: dict[str, str], chunks: int = 1) -> list[bytes]:
    """A request as it goes over the wire: the head, and the body in pieces; chunked where its length is hidden."""
    known = {"content-length": str(len(raw)), "content-type": "application/json"} | headers
    is_chunked = not known["content-length"]
    if is_chunked:
        known["transfer-encoding"] = "chunked"
    fields = "".join(f"{name}: {value}\r\n" for name, value in known.items() if value)
    size = max(1, -(-len(raw) // chunks))
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    if is_chunked:
        pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
    return [f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode(), *pieces]


class Bench:
    """An application on engines of the test's own, with a client. Build it on the event loop; `close` it there."""

    def __init__(
        self,
        *,
        queue_max: int = 8,
        timeout_s: float = float("inf"),
        is_repository_open: bool = False,
        **engines: Engine,
    ) -> None:
        self.series = Series()
        self.lifecycle = Lifecycle()
        self.models = {name: self._model(name, engine, queue_max) for name, engine in engines.items()}
        self.repository = Repository(
            self.models, open_model=self._open, start_model=self._start, is_open=is_repository_open
        )
        self.engines = dict(engines)
        service = Service("svc", "v1", self.repository, self.series, self.lifecycle)
        self.app = App(service, timeout_s=timeout_s)
        self.client = Client(self.app)

    def _model(self, name: str, engine: Engine, queue_max: int) -> Model:
        metrics = self.series.model(name)
        batcher = Batcher(engine, queue_max=queue_max, delay_s_max=0.0, metrics=metrics)
        wire = ModelWire(name, version="v1", inputs=engine.inputs, outputs=engine.outputs, rows_max=batcher.rows_max)
        return Model(name, wire, batcher, metrics)

    def _open(self, name: str) -> Engine:
        return self.engines[name]

    async def _start(self, name: str, engine: Engine) -> Model:
        return self._model(name, engine, 8)

    def counted(self, outcome: str, *, model: str = "m") -> float | None:
        """Requests with that outcome."""
        return self.series.registry.get_sample_value("nomadserve_requests_total", {"model": model, "outcome": outcome})

    def close(self) -> None:
        for model in self.repository.models.values():
            model.batcher.close()
