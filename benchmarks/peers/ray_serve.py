"""Ray Serve: one replica with `@serve.batch`; its proxy, or HAProxy, by RAY_SERVE_ENABLE_HA_PROXY."""

import signal

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.peers import given


@serve.deployment(
    num_replicas=1,
    max_ongoing_requests=given.QUEUE_MAX,
    max_queued_requests=given.QUEUE_MAX,
    ray_actor_options={"num_cpus": 1},
)
class Inference:
    """The model."""

    def __init__(self) -> None:
        self._session = given.session()

    @serve.batch(max_batch_size=given.BATCH_MAX, batch_wait_timeout_s=given.BATCH_WAIT_MS / 1000)
    async def infer(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        """A batch of rows."""
        return list(given.run(self._session, np.stack(rows)))

    async def __call__(self, request: Request) -> dict[str, list[float]] | Response:
        """One request."""
        if given.FORM == "binary":
            scores = await self.infer(given.row_of(await request.body()))
            return Response(scores.tobytes(), media_type="application/octet-stream")
        scores = await self.infer(np.array((await request.json())["inputs"], np.float32))
        return {"outputs": scores.tolist()}


if __name__ == "__main__":
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    serve.start(http_options={"host": "127.0.0.1", "port": given.PORT})
    serve.run(Inference.bind(), route_prefix="/predict")
    signal.pause()
