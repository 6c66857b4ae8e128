"""What a body says, whatever form it came in."""

import msgspec
import numpy as np

from nomadserve_runtime.tensors import RowShapes


class Query(msgspec.Struct, frozen=True, eq=False):
    """One decoded request.

    Attributes:
        inputs: one array per input of the model, in its order; shape (rows, *row_shape). Those that came in binary
            are views on the body.
        rows: at least 1.
        outputs: places, in the order of the model, of the outputs that the reply shall have.
        id: as the client gave it, or empty.
        timeout_s: the deadline that the client gave; infinite for none.
        priority: as the client gave it, 0 for none; 1 goes first, larger numbers later, as in the protocol.
        binary: those of `outputs` that the reply shall carry as bytes.
        shapes: row shapes of the inputs, where they may differ from request to request; else empty.
    """

    inputs: tuple[np.ndarray, ...]
    rows: int
    outputs: tuple[int, ...]
    id: str
    timeout_s: float
    priority: int = 0
    binary: frozenset[int] = frozenset()
    shapes: RowShapes = ()
