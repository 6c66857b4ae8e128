"""The HTTP interface: the inference path first, without a framework, and Litestar for everything else."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from litestar import Litestar, Request, Response, get, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from nomadserve_runtime.apidocs import InferenceOperation, InferOperation, openapi
from nomadserve_runtime.bridge import AsgiBridge
from nomadserve_runtime.calls import INFER, Model
from nomadserve_runtime.describe import (
    EXTENSIONS,
    REPOSITORY_EXTENSION,
    configuration,
    metadata,
    statistics,
    version_number,
)
from nomadserve_runtime.errors import Fault, NotFound
from nomadserve_runtime.inference import Inference
from nomadserve_runtime.lifecycle import Lifecycle
from nomadserve_runtime.metrics import CONTENT_TYPE, Series
from nomadserve_runtime.repository import Repository
from nomadserve_runtime.rsgi import Answer, Exchange, Scope

log = logging.getLogger("nomadserve.app")

Content = dict[str, Any]
AnyRequest = Request[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Service:
    """All that the process serves; what the routes read.

    Attributes:
        name: of the service.
        version: of the service, and of all its models.
    """

    name: str
    version: str
    repository: Repository
    series: Series
    lifecycle: Lifecycle

    def model(self, name: str, version: str) -> Model:
        """The loaded model of that name, in that version or (empty) any; raises `NotFound`."""
        model = self.repository.model(name)
        if version not in ("", self.version, version_number(self.version)):
            raise NotFound(f"the model `{name}` is here in version `{self.version}`, not `{version}`")
        return model


class App:
    """The application: answers every request that the server gets."""

    def __init__(self, service: Service, *, timeout_s: float, is_access_logged: bool = False) -> None:
        self._bridge = AsgiBridge(_framework(service), [("x-nomadserve-version", service.version)])
        self._service = service
        self._inference = Inference(
            service.repository.models,
            version=service.version,
            timeout_s=timeout_s,
            lifecycle=service.lifecycle,
            is_logged=is_access_logged,
        )
        service.repository.on_change = self._refresh
        self._refresh()

    def __call__(self, scope: Scope, exchange: Exchange) -> Awaitable[None] | None:
        """One request. Its path decides: inference here, all else in the framework."""
        answer = self._inference_by_path.get(scope.path)
        if answer is not None and scope.method == "POST":
            return answer(scope, exchange)
        return self._bridge(scope, exchange)

    def when_idle(self, call: Callable[[], None]) -> None:
        """Have it called when the last one who waited for an engine has a reply."""
        self._inference.on_idle = call

    def is_idle(self) -> bool:
        """Whether nobody waits for an engine."""
        return not any(model.batcher.in_flight for model in self._service.repository.models.values())

    def _refresh(self) -> None:
        """Models were loaded or unloaded."""
        self._inference.refresh()
        self._inference_by_path: dict[str, Answer] = {"/v1/inference": self._inference.answer_plain}
        for name, model in self._service.repository.models.items():
            answer = self._infer(model)
            self._inference_by_path[f"/v2/models/{name}/infer"] = answer
            for version in (self._service.version, version_number(self._service.version)):
                self._inference_by_path[f"/v2/models/{name}/versions/{version}/infer"] = answer

    def _infer(self, model: Model) -> Answer:
        return lambda scope, exchange: self._inference.answer(model, INFER, scope, exchange)


MODEL = "/v2/models/{name:str}"
MODEL_VERSION = "/v2/models/{name:str}/versions/{version:str}"


def _framework(service: Service) -> Any:
    return Litestar(
        [server, live, ready, all_statistics, *MODEL_ROUTES, index, load, unload, metrics, plain_inference, infer],
        state=State({"service": service}),
        exception_handlers={Fault: _fault, HTTPException: _http_exception, Exception: _bug},
        logging_config=None,  # the composition root set the log up
        openapi_config=openapi(service.name, service.version),
    )


def _requested(request: AnyRequest) -> tuple[Service, Model]:
    """The service, and the model that the path names."""
    service: Service = request.app.state.service
    return service, service.model(request.path_params["name"], request.path_params.get("version", ""))


@get("/v2", sync_to_thread=False, tags=["protocol"])
def server(state: State) -> Content:
    """Server metadata."""
    service: Service = state.service
    extensions = [*EXTENSIONS, *([REPOSITORY_EXTENSION] if service.repository.is_open else [])]
    return {"name": service.name, "version": service.version, "extensions": extensions}


@get("/v2/health/live", sync_to_thread=False, tags=["health"])
def live() -> Content:
    """Whether the process answers at all."""
    return {"live": True}


@get("/v2/health/ready", sync_to_thread=False, tags=["health"])
def ready(state: State) -> Response[Content]:
    """Whether new requests should come here; 503 as soon as the replica is told to end."""
    is_ready = state.service.lifecycle.is_ready
    return Response({"ready": is_ready}, status_code=_ready_status(is_ready))


@get([MODEL, MODEL_VERSION], sync_to_thread=False, tags=["models"])
def model(request: AnyRequest) -> Content:
    """Model metadata: its inputs and outputs; -1 stands for the rows."""
    service, found = _requested(request)
    return metadata(found, version=service.version)


@get([f"{MODEL}/ready", f"{MODEL_VERSION}/ready"], sync_to_thread=False, tags=["models"])
def model_ready(request: AnyRequest) -> Response[Content]:
    """Whether requests for this model should come here."""
    service, found = _requested(request)
    is_ready = service.lifecycle.is_ready
    return Response({"name": found.name, "ready": is_ready}, status_code=_ready_status(is_ready))


@get([f"{MODEL}/config", f"{MODEL_VERSION}/config"], sync_to_thread=False, tags=["models"])
def model_configuration(request: AnyRequest) -> Content:
    """Model configuration, in the words of Triton's."""
    _, found = _requested(request)
    return configuration(found)


@get([f"{MODEL}/stats", f"{MODEL_VERSION}/stats"], sync_to_thread=False, tags=["models"])
def model_statistics(request: AnyRequest) -> Content:
    """Statistics since the start, and the calibration table."""
    service, found = _requested(request)
    return {"model_stats": [statistics(found, version=service.version)]}


@get("/v2/models/stats", sync_to_thread=False, tags=["models"])
def all_statistics(state: State) -> Content:
    """Statistics of all loaded models."""
    service: Service = state.service
    models = service.repository.models.values()
    return {"model_stats": [statistics(model, version=service.version) for model in models]}


MODEL_ROUTES = (model, model_ready, model_configuration, model_statistics)


@post("/v2/repository/index", status_code=200, sync_to_thread=False, tags=["repository"])
def index(state: State) -> list[Content]:
    """All models of the configuration, loaded or not."""
    service: Service = state.service
    return service.repository.index(version=service.version)


@post("/v2/repository/models/{name:str}/load", status_code=200, tags=["repository"])
async def load(request: AnyRequest) -> None:
    """Load a model of the configuration. Only where `NOMADSERVE_REPOSITORY=1`."""
    await request.app.state.service.repository.load(request.path_params["name"])


@post("/v2/repository/models/{name:str}/unload", status_code=200, tags=["repository"])
async def unload(request: AnyRequest) -> None:
    """Finish the requests of a model and close it. Only where `NOMADSERVE_REPOSITORY=1`."""
    await request.app.state.service.repository.unload(request.path_params["name"])


@get("/metrics", sync_to_thread=False, tags=["metrics"])
def metrics(state: State) -> Response[bytes]:
    """Metrics in the Prometheus text format."""
    return Response(state.service.series.render(), media_type=CONTENT_TYPE)


@post("/v1/inference", operation_class=InferenceOperation, status_code=200, sync_to_thread=False, tags=["inference"])
def plain_inference() -> Content:
    """Plain JSON inference."""
    raise AssertionError("`App` answers this path; the route is here for the schema")


@post(
    [f"{MODEL}/infer", f"{MODEL_VERSION}/infer"],
    operation_class=InferOperation,
    status_code=200,
    sync_to_thread=False,
    tags=["inference"],
)
def infer(request: AnyRequest) -> Content:
    """Inference by the Open Inference Protocol v2: in JSON, or with binary tensors."""
    _requested(request)
    raise AssertionError("`App` answers this path for every model that is loaded")


def _ready_status(is_ready: bool) -> int:
    return HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE


def _fault(_: AnyRequest, fault: Fault) -> Response[Content]:
    return _error(fault.status, fault.message, fault.reason, headers=dict(fault.headers))


def _http_exception(request: AnyRequest, error: HTTPException) -> Response[Content]:
    reason = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    text = error.detail if error.status_code != HTTPStatus.NOT_FOUND else f"there is nothing at `{request.url.path}`"
    return _error(error.status_code, text, reason, headers=error.headers)


def _bug(_: AnyRequest, error: Exception) -> Response[Content]:
    log.error("a request failed", exc_info=error)
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error", Fault.reason)


def _error(status: int, text: str, reason: str, *, headers: Mapping[str, str] | None = None) -> Response[Content]:
    return Response({"error": text, "reason": reason}, status_code=status, headers=headers)
