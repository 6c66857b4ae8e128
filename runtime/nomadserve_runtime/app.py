"""The HTTP interface: the inference path first, without a framework, and Litestar for everything else."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from litestar import Litestar, Request, Response, get, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig

from nomadserve_runtime.apidocs import InferenceOperation, InferOperation
from nomadserve_runtime.errors import Fault, NotFound
from nomadserve_runtime.inference import INFER, Inference, Message, Model, Receive, Scope, Send
from nomadserve_runtime.lifecycle import Lifecycle
from nomadserve_runtime.metrics import CONTENT_TYPE, Series
from nomadserve_runtime.tensors import TensorSpec

log = logging.getLogger("nomadserve.app")

Content = dict[str, Any]
AnyRequest = Request[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Service:
    """All that the process serves; what the routes read.

    Attributes:
        name: of the service.
        version: of the service.
        models: by name.
    """

    name: str
    version: str
    models: Mapping[str, Model]
    series: Series
    lifecycle: Lifecycle

    def model(self, name: str) -> Model:
        """The model of that name; raises `NotFound`."""
        if name not in self.models:
            known = ", ".join(f"`{known}`" for known in self.models)
            raise NotFound(f"no model `{name}` is served here, but {known}")
        return self.models[name]


class App:
    """The ASGI application."""

    def __init__(self, service: Service, *, timeout_s: float) -> None:
        self._version_header = (b"x-nomadserve-version", service.version.encode())
        self._framework: Any = _framework(service)
        self._inference_by_path = _inference_by_path(service, timeout_s=timeout_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Its path decides: inference here, all else in the framework."""
        answer = self._inference_by_path.get(scope["path"])
        if answer is not None and scope["method"] == "POST":
            await answer(scope, receive, send)
            return

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], self._version_header]
            await send(message)

        await self._framework(scope, receive, send_with_version)


Answer = Callable[[Scope, Receive, Send], Awaitable[None]]


def _inference_by_path(service: Service, *, timeout_s: float) -> dict[str, Answer]:
    inference = Inference(service.models, version=service.version, timeout_s=timeout_s, lifecycle=service.lifecycle)

    def infer(model: Model) -> Answer:
        return lambda scope, receive, send: inference.answer(model, INFER, scope, receive, send)

    paths = {f"/v2/models/{model.name}/infer": infer(model) for model in service.models.values()}
    return {"/v1/inference": inference.answer_plain, **paths}


def _framework(service: Service) -> Litestar:
    return Litestar(
        [server, live, ready, model, model_ready, metrics, plain_inference, infer],
        state=State({"service": service}),
        exception_handlers={Fault: _fault, HTTPException: _http_exception, Exception: _bug},
        logging_config=None,  # the composition root set the log up
        openapi_config=OpenAPIConfig(title=service.name, version=service.version, use_handler_docstrings=True),
    )


@get("/v2", sync_to_thread=False)
def server(state: State) -> Content:
    """Server metadata."""
    service: Service = state.service
    return {"name": service.name, "version": service.version, "extensions": []}


@get("/v2/health/live", sync_to_thread=False)
def live() -> Content:
    """Whether the process answers at all."""
    return {"live": True}


@get("/v2/health/ready", sync_to_thread=False)
def ready(state: State) -> Response[Content]:
    """Whether new requests should come here; 503 as soon as the replica is told to end."""
    is_ready = state.service.lifecycle.is_ready
    return Response({"ready": is_ready}, status_code=_ready_status(is_ready))


@get("/v2/models/{name:str}", sync_to_thread=False)
def model(request: AnyRequest) -> Content:
    """Model metadata: its inputs and outputs; -1 stands for the rows."""
    service: Service = request.app.state.service
    found = service.model(request.path_params["name"])
    engine = found.batcher.engine
    return {
        "name": found.name,
        "versions": [service.version],
        "platform": engine.platform,
        "inputs": [_metadata(spec) for spec in engine.inputs],
        "outputs": [_metadata(spec) for spec in engine.outputs],
    }


@get("/v2/models/{name:str}/ready", sync_to_thread=False)
def model_ready(request: AnyRequest) -> Response[Content]:
    """Whether requests for this model should come here."""
    service: Service = request.app.state.service
    found = service.model(request.path_params["name"])
    is_ready = service.lifecycle.is_ready
    return Response({"name": found.name, "ready": is_ready}, status_code=_ready_status(is_ready))


@get("/metrics", sync_to_thread=False)
def metrics(state: State) -> Response[bytes]:
    """Metrics in the Prometheus text format."""
    return Response(state.service.series.render(), media_type=CONTENT_TYPE)


@post("/v1/inference", operation_class=InferenceOperation, status_code=200, sync_to_thread=False)
def plain_inference() -> Content:
    """Plain JSON inference."""
    raise AssertionError("`App` answers this path; the route is here for the schema")


@post("/v2/models/{name:str}/infer", operation_class=InferOperation, status_code=200, sync_to_thread=False)
def infer(request: AnyRequest) -> Content:
    """Inference by the Open Inference Protocol v2, in JSON."""
    request.app.state.service.model(request.path_params["name"])
    raise AssertionError("`App` answers this path for every model that is served")


def _metadata(spec: TensorSpec) -> Content:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.batch_shape)}


def _ready_status(is_ready: bool) -> int:
    return HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE


def _fault(_: AnyRequest, fault: Fault) -> Response[Content]:
    return _error(fault.status, fault.message, fault.reason)


def _http_exception(request: AnyRequest, error: HTTPException) -> Response[Content]:
    reason = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    text = error.detail if error.status_code != HTTPStatus.NOT_FOUND else f"there is nothing at `{request.url.path}`"
    return _error(error.status_code, text, reason, headers=error.headers)


def _bug(_: AnyRequest, error: Exception) -> Response[Content]:
    log.error("a request failed", exc_info=error)
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error", Fault.reason)


def _error(status: int, text: str, reason: str, *, headers: Mapping[str, str] | None = None) -> Response[Content]:
    return Response({"error": text, "reason": reason}, status_code=status, headers=headers)
