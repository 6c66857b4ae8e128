"""All forms of one model, behind one object."""

import math
from collections.abc import Sequence

from nomadserve_runtime.tensors import TEXT, Profile, TensorSpec, largest
from nomadserve_runtime.wire.infer import InferForm
from nomadserve_runtime.wire.plain import PlainForm

# The longest way to write one number, its comma and its share of the indentation, in a JSON body that a machine wrote.
ELEMENT_NBYTES_MAX = 64
# What a string may take on average; one may be as long as all of a request together.
TEXT_NBYTES_MAX = 64 * 1024
# What a body holds beside its numbers and strings: names, id, parameters.
ENVELOPE_NBYTES_MAX = 64 * 1024


class ModelWire:
    """Decodes the requests and encodes the replies of one model.

    profiles: the row shapes that it takes, where they may differ from request to request.

    Attributes:
        body_nbytes_max: no valid body for this model is longer.
    """

    def __init__(
        self,
        name: str,
        *,
        version: str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        rows_max: int,
        profiles: Sequence[Profile] = (),
    ) -> None:
        self.name = name
        self.version = version
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.rows_max = rows_max
        row_nbytes_max = sum(
            math.prod(shape) * (TEXT_NBYTES_MAX if spec.dtype == TEXT else ELEMENT_NBYTES_MAX)
            for spec, shape in zip(inputs, largest(inputs, profiles), strict=True)
        )
        self.body_nbytes_max = ENVELOPE_NBYTES_MAX + rows_max * row_nbytes_max
        plain = PlainForm(name, version=version, inputs=inputs, outputs=outputs, rows_max=rows_max, profiles=profiles)
        infer = InferForm(name, version=version, inputs=inputs, outputs=outputs, rows_max=rows_max, profiles=profiles)
        # Bound once: each of them is called for every request.
        self.decode_plain = plain.decode
        self.encode_plain = plain.encode
        self.decode_infer = infer.decode
        self.decode_binary = infer.decode_binary
        self.begin_binary = infer.begin_binary
        self.encode_infer = infer.encode
        self.encode_binary = infer.encode_binary
