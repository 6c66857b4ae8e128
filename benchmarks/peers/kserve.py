"""KServe's own server (its SDK): a custom model, no batcher (that one is a separate agent in the cluster)."""

from typing import Any

import numpy as np
from kserve import Model, ModelServer

from benchmarks.peers import given


class Inference(Model):
    """The model."""

    def __init__(self) -> None:
        super().__init__(given.MODEL_NAME)
        self._session = given.session()
        self.ready = True

    async def predict(self, payload: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        """One request of the v1 protocol."""
        rows = np.array(payload["instances"], np.float32)
        return {"predictions": given.run(self._session, rows).tolist()}


if __name__ == "__main__":
    server = ModelServer(
        http_port=given.PORT, enable_grpc=False, workers=1, enable_docs_url=False, access_log_format=""
    )
    server.start([Inference()])
