"""A client that speaks ASGI to an application in the same process: no socket, no server."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nomadserve_runtime.app import App, Service
from nomadserve_runtime.batcher import Batcher
from nomadserve_runtime.engine import Engine
from nomadserve_runtime.inference import Model
from nomadserve_runtime.lifecycle import Lifecycle
from nomadserve_runtime.metrics import Series
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


class Client:
    """Sends one request after the other; `hang_up` closes the connection of those under way."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._gone = asyncio.Event()
        self.messages_read = 0

    def hang_up(self) -> None:
        self._gone.set()

    async def __call__(
        self, method: str, path: str, body: Any = b"", *, headers: dict[str, str] | None = None, chunks: int = 1
    ) -> Answer:
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        size = max(1, -(-len(raw) // chunks))
        parts = [raw[start : start + size] for start in range(0, len(raw), size)] or [b""]
        answer = Answer()

        async def receive() -> dict[str, Any]:
            self.messages_read += 1
            if parts:
                return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.body += message.get("body", b"")

        known = {"content-length": str(len(raw)), "content-type": "application/json"} | (headers or {})
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
            "state": {},
            "headers": [(name.encode(), value.encode()) for name, value in known.items() if value],
        }
        await self._app(scope, receive, send)
        return answer


class Bench:
    """An application on engines of the test's own, with a client. Build it on the event loop; `close` it there."""

    def __init__(self, *, queue_max: int = 8, timeout_s: float = float("inf"), **engines: Engine) -> None:
        self.series = Series()
        self.lifecycle = Lifecycle()
        self.models = {name: self._model(name, engine, queue_max) for name, engine in engines.items()}
        service = Service("svc", "v1", self.models, self.series, self.lifecycle)
        self.app = App(service, timeout_s=timeout_s)
        self.client = Client(self.app)

    def _model(self, name: str, engine: Engine, queue_max: int) -> Model:
        metrics = self.series.model(name)
        batcher = Batcher(engine, queue_max=queue_max, delay_s_max=0.0, metrics=metrics)
        wire = ModelWire(name, version="v1", inputs=engine.inputs, outputs=engine.outputs, rows_max=batcher.rows_max)
        return Model(name, wire, batcher, metrics)

    def counted(self, outcome: str, *, model: str = "m") -> float | None:
        """Requests with that outcome."""
        return self.series.registry.get_sample_value("nomadserve_requests_total", {"model": model, "outcome": outcome})

    def close(self) -> None:
        for model in self.models.values():
            model.batcher.close()
