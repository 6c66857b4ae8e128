"""What the OpenAPI document says of the two inference routes, which take their bodies past the framework."""

from dataclasses import dataclass

from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema

TEXT = Schema(type=OpenAPIType.STRING)
NUMBERS = Schema(
    description="One row after the other, nested; the protocol also takes them flat, row-major",
    type=OpenAPIType.ARRAY,
    items=Schema(),
)
TENSOR = Schema(
    type=OpenAPIType.OBJECT,
    required=["name", "shape", "datatype", "data"],
    properties={
        "name": TEXT,
        "shape": Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.INTEGER)),
        "datatype": Schema(type=OpenAPIType.STRING, examples=["FP32"]),
        "data": NUMBERS,
    },
)
PLAIN = Schema(
    type=OpenAPIType.OBJECT,
    required=["inputs"],
    properties={
        "inputs": Schema(type=OpenAPIType.OBJECT, description="Rows by input name", additional_properties=NUMBERS),
        "model": Schema(type=OpenAPIType.STRING, description="Which model, where several are served"),
        "id": Schema(type=OpenAPIType.STRING, description="Comes back in the reply"),
        "timeout_ms": Schema(type=OpenAPIType.NUMBER, description="504 where not launched by then"),
    },
)
INFER = Schema(
    type=OpenAPIType.OBJECT,
    required=["inputs"],
    properties={
        "inputs": Schema(type=OpenAPIType.ARRAY, items=TENSOR),
        "id": TEXT,
        "outputs": Schema(
            description="Which outputs to return; all where left away",
            type=OpenAPIType.ARRAY,
            items=Schema(type=OpenAPIType.OBJECT, required=["name"], properties={"name": TEXT}),
        ),
    },
)


def _json(schema: Schema) -> RequestBody:
    return RequestBody(required=True, content={"application/json": OpenAPIMediaType(schema=schema)})


@dataclass
class InferenceOperation(Operation):
    """`POST /v1/inference`."""

    def __post_init__(self) -> None:
        """Add the body."""
        self.request_body = _json(PLAIN)


@dataclass
class InferOperation(Operation):
    """`POST /v2/models/{name}/infer`."""

    def __post_init__(self) -> None:
        """Add the body."""
        self.request_body = _json(INFER)
