"""LitServe: batching, one worker process, ZeroMQ between them, as its documentation advises above 100 requests/s."""

from typing import Any

import litserve
import numpy as np

from benchmarks.peers import given


class Inference(litserve.LitAPI):
    """The model, in LitServe's five steps."""

    def setup(self, device: str) -> None:
        """Open the model."""
        self._session = given.session()

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        """A body as one row."""
        return np.array(request["inputs"], np.float32)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Rows as a batch."""
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """A batch."""
        return given.run(self._session, x)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """A batch as rows."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, list[float]]:
        """One row of scores as a reply."""
        return {"outputs": output.tolist()}


if __name__ == "__main__":
    api = Inference(max_batch_size=given.BATCH_MAX, batch_timeout=given.BATCH_WAIT_MS / 1000)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True, timeout=60)
    server.run(host="127.0.0.1", port=given.PORT, generate_client_file=False, log_level="warning", access_log=False)
