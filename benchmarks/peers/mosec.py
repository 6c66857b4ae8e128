"""mosec: one inference stage with dynamic batching; bodies by `deserialize`, as its documentation shows.

JSON is decoded by msgspec, which mosec itself offers for typed bodies, instead of its slower default.
"""

import msgspec
import numpy as np
from mosec import Server, Worker

from benchmarks.peers import given


class Inference(Worker):
    """The model; `forward` gets the rows of a batch as a list."""

    def __init__(self) -> None:
        super().__init__()
        self._session = given.session()
        self._decoder = msgspec.json.Decoder()

    def deserialize(self, data: bytes) -> np.ndarray:
        """A body as one row."""
        if given.FORM == "binary":
            return given.row_of(data)
        return np.array(self._decoder.decode(data)["inputs"], np.float32)

    def forward(self, data: list[np.ndarray]) -> list[np.ndarray]:
        """A batch of rows."""
        return list(given.run(self._session, np.stack(data)))

    def serialize(self, data: np.ndarray) -> bytes:
        """One row of scores as a reply."""
        if given.FORM == "binary":
            return data.tobytes()
        return msgspec.json.encode({"outputs": data.tolist()})


if __name__ == "__main__":
    server = Server()
    server.append_worker(Inference, num=1, max_batch_size=given.BATCH_MAX, max_wait_time=given.BATCH_WAIT_MS)
    server.run()
