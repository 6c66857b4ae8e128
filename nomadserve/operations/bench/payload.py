"""The requests' bodies: a user's own, or made from the model's metadata. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from nomadserve.errors import WrongInput

MADE = 16  # different bodies, so that nothing along the way can answer from a cache
SEED = 20250101  # the same bodies in every run
PLAIN_PATH = "/v1/inference"


@dataclass(frozen=True, slots=True)
class Payload:
    """What to send, and where.

    Attributes:
        path: of the request; follows from the form of the bodies.
        rows: of the mean request.
        origin: in words, for the report.
    """

    path: str
    bodies: tuple[str, ...]
    rows: float
    origin: str


def from_text(text: bytes, *, model: str, origin: str) -> Payload:
    """Bodies from a file: one JSON object, a list of them, or one to a line.

    Raises:
        WrongInput: none of the three, or plain and protocol bodies mixed.
    """
    bodies = _objects(text, origin)
    if not bodies:
        raise WrongInput(f"`{origin}` holds no request body", hint='write one: {"inputs": {"image": [[0, 0, 5]]}}')
    is_protocol = {isinstance(body.get("inputs"), list) for body in bodies}
    if len(is_protocol) > 1:
        raise WrongInput(
            f"`{origin}` mixes plain bodies and bodies of the Open Inference Protocol", hint="split it in two"
        )
    path = f"/v2/models/{model}/infer" if is_protocol.pop() else PLAIN_PATH
    return Payload(path, _encoded(bodies), sum(map(_rows, bodies)) / len(bodies), origin)


def from_metadata(metadata: dict[str, Any], *, rows: int, model: str | None = None) -> Payload:
    """Plain bodies with random numbers in the shapes that `GET /v2/models/NAME` names.

    rows: of each request.  model: named in the body, where the replica serves several.

    Raises:
        WrongInput: an input is no tensor of numbers of a known shape.
    """
    chance = random.Random(SEED)
    bodies = []
    for _ in range(MADE):
        inputs = {tensor["name"]: _made(tensor, rows, chance) for tensor in metadata["inputs"]}
        bodies.append({"model": model, "inputs": inputs} if model else {"inputs": inputs})
    return Payload(PLAIN_PATH, _encoded(bodies), rows, f"random numbers in the model's shapes, rows: {rows}")


def _objects(text: bytes, origin: str) -> list[dict[str, Any]]:
    try:
        found = msgspec.json.decode(text)
        found = found if isinstance(found, list) else [found]
    except msgspec.DecodeError:
        try:
            found = [msgspec.json.decode(line) for line in text.splitlines() if line.strip()]
        except msgspec.DecodeError as error:
            raise WrongInput(
                f"`{origin}` is no JSON: {error}", hint="one body, a list of bodies, or one body to a line"
            ) from error
    for body in found:
        if not isinstance(body, dict):
            raise WrongInput(f"`{origin}` holds a body that is no JSON object", hint='a body is {"inputs": …}')
    return found


def _encoded(bodies: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(msgspec.json.encode(body).decode() for body in bodies)


def _rows(body: dict[str, Any]) -> int:
    """Rows of one body; 1 where it can't be told."""
    inputs = body.get("inputs")
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], dict):
        shape = inputs[0].get("shape")
        return shape[0] if isinstance(shape, list) and shape and isinstance(shape[0], int) else 1
    first = next(iter(inputs.values()), None) if isinstance(inputs, dict) else None
    return len(first) if isinstance(first, list) and first else 1


def _made(tensor: dict[str, Any], rows: int, chance: random.Random) -> Any:
    """One input with random content; the leading -1 of its shape stands for the rows."""
    row_shape, datatype = tensor["shape"][1:], tensor["datatype"]
    draw = {
        "F": lambda: round(chance.random(), 4),
        "I": lambda: chance.randrange(2),
        "U": lambda: chance.randrange(2),
    }.get(datatype[:1])
    if datatype == "BOOL":
        draw = lambda: chance.random() < 0.5  # noqa: E731
    if draw is None or any(size < 1 for size in row_shape):
        raise WrongInput(
            f"no request can be made up for input `{tensor['name']}` ({datatype}, shape {tensor['shape']})",
            hint="give real ones: `--data @requests.json`",
        )
    return _nested([rows, *row_shape], draw)


def _nested(shape: Sequence[int], draw: Any) -> Any:
    return [_nested(shape[1:], draw) for _ in range(shape[0])] if shape else draw()
