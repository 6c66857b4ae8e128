"""MLServer: a custom runtime with adaptive batching, in the server's own process (one core: a second only costs)."""

import json
import os
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers import given


class Inference(MLModel):
    """The model."""

    async def load(self) -> bool:
        """Open it."""
        self._session = given.session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """A batch that MLServer put together."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        scores = NumpyCodec.encode_output(given.OUTPUT, given.run(self._session, rows))
        return InferenceResponse(model_name=self.name, outputs=[scores])


def write_settings(folder: Path) -> None:
    """What `mlserver start` reads."""
    server = {"host": "127.0.0.1", "http_port": given.PORT, "grpc_port": 0, "metrics_port": 0}
    server |= {"parallel_workers": 0, "debug": False}
    model = {
        "name": given.MODEL_NAME,
        "implementation": "benchmarks.peers.mlserver.Inference",
        "max_batch_size": given.BATCH_MAX,
        "max_batch_time": given.BATCH_WAIT_MS / 1000,
    }
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))


if __name__ == "__main__":
    write_settings(Path.cwd())
    os.execvp("mlserver", ["mlserver", "start", "."])
