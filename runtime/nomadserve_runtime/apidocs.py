"""What the OpenAPI document says of the two inference routes, which take their bodies past the framework."""

from dataclasses import dataclass

from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import (
    OpenAPIFormat,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
)

TEXT = Schema(type=OpenAPIType.STRING)
BYTES = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description="The JSON, and the tensors behind it")
ROWS = Schema(
    description="Numbers or strings, one row after the other, nested; the protocol also takes them flat, row-major",
    type=OpenAPIType.ARRAY,
    items=Schema(),
)
INTEGERS = Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.INTEGER))
TIMEOUT_MS = Schema(type=OpenAPIType.NUMBER, description="503 or 504 where it can't be run by then")
PRIORITY = Schema(type=OpenAPIType.INTEGER, description="1 goes first, larger numbers later; 0 for none")


def _object(required: list[str], description: str | None = None, **properties: Schema) -> Schema:
    return Schema(type=OpenAPIType.OBJECT, required=required, description=description, properties=dict(properties))


def _tensor(*extra: str) -> Schema:
    parameters = _object([], "`binary_data_size`: bytes behind the JSON, in the place of `data`")
    return _object(
        ["name", "shape", "datatype", *extra],
        name=TEXT,
        shape=INTEGERS,
        datatype=Schema(type=OpenAPIType.STRING, examples=["FP32"]),
        data=ROWS,
        parameters=parameters,
    )


PLAIN = _object(
    ["inputs"],
    inputs=Schema(type=OpenAPIType.OBJECT, description="Rows by input name", additional_properties=ROWS),
    model=Schema(type=OpenAPIType.STRING, description="Which model, where several are served"),
    id=Schema(type=OpenAPIType.STRING, description="Comes back in the reply"),
    timeout_ms=TIMEOUT_MS,
    priority=PRIORITY,
)
PLAIN_REPLY = _object(
    ["id", "model", "version", "time", "outputs"],
    id=TEXT,
    model=TEXT,
    version=TEXT,
    time=Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME),
    outputs=Schema(type=OpenAPIType.OBJECT, description="Rows by output name", additional_properties=ROWS),
)
INFER = _object(
    ["inputs"],
    inputs=Schema(type=OpenAPIType.ARRAY, items=_tensor()),
    id=TEXT,
    outputs=Schema(
        description="Which outputs to return; all where left away. `parameters.binary_data`: as bytes",
        type=OpenAPIType.ARRAY,
        items=_object(["name"], name=TEXT, parameters=_object([])),
    ),
    parameters=_object([], "`timeout` in microseconds, `priority`, `binary_data_output` for all outputs as bytes"),
)
INFER_REPLY = _object(
    ["model_name", "model_version", "id", "outputs"],
    model_name=TEXT,
    model_version=TEXT,
    id=TEXT,
    outputs=Schema(type=OpenAPIType.ARRAY, items=_tensor()),
)
ERROR = _object(
    ["error", "reason"],
    error=Schema(type=OpenAPIType.STRING, description="For people; names the JSON path of what is wrong"),
    reason=Schema(type=OpenAPIType.STRING, description="One word for programs"),
    retry_after_ms=Schema(type=OpenAPIType.INTEGER, description="With 503: when the present backlog is done"),
)
# Status → when.
ERRORS = {
    "400": "The body is not what the model takes",
    "404": "No such model, or version",
    "408": "The body did not arrive in time",
    "413": "Longer than any body that fits the model",
    "415": "Neither JSON nor binary tensors, or in an unknown coding",
    "500": "The engine failed on the batch of this request",
    "503": "Not now: `queue_full`, `deadline` (can't be met) or `draining`",
    "504": "Not run before its deadline",
}
HEADERS = {
    "x-nomadserve-timeout-ms": "Milliseconds until the request must be run",
    "traceparent": "W3C trace context; goes into the log and the reply",
    "accept-encoding": "gzip or deflate: the reply is packed where it is long",
    "content-encoding": "gzip or deflate, where the body is packed",
}
BINARY_HEADER = {
    "inference-header-content-length": "Where the JSON of a body with binary tensors ends; 0 for raw bytes"
}


def openapi(name: str, version: str) -> OpenAPIConfig:
    """The document of a service."""
    return OpenAPIConfig(
        title=name,
        version=version,
        description="Inference, in plain JSON and by the Open Inference Protocol v2. "
        'Every error is `{"error": text, "reason": word}`.',
        use_handler_docstrings=True,
    )


def _content(schema: Schema, *, is_binary: bool) -> dict[str, OpenAPIMediaType]:
    content = {"application/json": OpenAPIMediaType(schema=schema)}
    return content | ({"application/octet-stream": OpenAPIMediaType(schema=BYTES)} if is_binary else {})


def _responses(reply: Schema, *, is_binary: bool) -> dict[str, OpenAPIResponse]:
    retry_after = OpenAPIHeader(schema=Schema(type=OpenAPIType.INTEGER), description="Seconds")
    errors = {
        status: OpenAPIResponse(
            description=text,
            content=_content(ERROR, is_binary=False),
            headers={"retry-after": retry_after} if status == "503" else None,
        )
        for status, text in ERRORS.items()
    }
    timing = OpenAPIHeader(schema=TEXT, description="Milliseconds in `queue` and `engine`, and in `total`")
    answered = OpenAPIResponse(
        description="The outputs",
        content=_content(reply, is_binary=is_binary),
        headers={"server-timing": timing},
    )
    return {"200": answered, **errors}


def _headers(texts: dict[str, str]) -> list[Parameter]:
    return [
        Parameter(name=name, param_in="header", schema=TEXT, required=False, description=text)
        for name, text in texts.items()
    ]


def _describe(operation: Operation, body: Schema, reply: Schema, *, is_binary: bool) -> None:
    operation.request_body = RequestBody(required=True, content=_content(body, is_binary=is_binary))
    operation.responses = dict(_responses(reply, is_binary=is_binary))
    known = list(operation.parameters or [])
    operation.parameters = [*known, *_headers(HEADERS | (BINARY_HEADER if is_binary else {}))]


@dataclass
class InferenceOperation(Operation):
    """`POST /v1/inference`."""

    def __post_init__(self) -> None:
        """Add what the framework can't see."""
        _describe(self, PLAIN, PLAIN_REPLY, is_binary=False)


@dataclass
class InferOperation(Operation):
    """`POST /v2/models/{name}/infer`."""

    def __post_init__(self) -> None:
        """Add what the framework can't see."""
        _describe(self, INFER, INFER_REPLY, is_binary=True)
