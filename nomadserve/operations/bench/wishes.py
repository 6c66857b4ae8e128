"""How the user wants it measured."""

from collections.abc import Mapping

import msgspec

from nomadserve.operations.bench.knee import Limits


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """All options of `bench`.

    Attributes:
        version: of a service, which pins it.  through_gateway: rather than asking one replica directly.
        data: bodies as a file holds them, and `data_origin` its name; without, bodies are made from the metadata.
        rows: of each made request.
        step_s: seconds of a step that count, after `settle_s` that do not.
        start: first rate; None: by the latency of single requests.
        serve: options of `nomadserve serve`, where TARGET is a model file.
        threads: to compare, where TARGET is a model file.
    """

    limits: Limits
    version: str | None = None
    through_gateway: bool = False
    model: str | None = None
    data: bytes | None = None
    data_origin: str = ""
    rows: int = 1
    step_s: float = 5.0
    settle_s: float = 1.0
    precision: float = 0.05
    start: float | None = None
    rate_max: float = 100_000.0
    serve: Mapping[str, object] = {}
    threads: tuple[int, ...] = ()
