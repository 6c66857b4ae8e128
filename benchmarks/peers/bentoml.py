"""BentoML: a batchable API; how long it waits for a batch is its own, adaptive choice."""

from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import DType

from benchmarks.peers import given

Rows = Annotated[np.ndarray, DType("float32")]


@bentoml.service(
    workers=1,
    traffic={"timeout": 60, "max_concurrency": given.QUEUE_MAX},
    logging={"access": {"enabled": False}},
)
class Inference:
    """The model."""

    def __init__(self) -> None:
        self._session = given.session()

    @bentoml.api(batchable=True, max_batch_size=given.BATCH_MAX)
    def predict(self, inputs: Rows) -> Rows:
        """A batch."""
        return given.run(self._session, inputs)
