"""Triton by pytriton: its own HTTP server and dynamic batcher, the model in its Python backend."""

import tempfile
from pathlib import Path

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, QueuePolicy, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers import given

session = given.session()


@batch
def infer(x: np.ndarray) -> dict[str, np.ndarray]:
    """A batch."""
    return {given.OUTPUT: given.run(session, x)}


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=given.PORT,
        allow_grpc=False,
        allow_metrics=False,
        cache_directory=None,
        log_verbose=0,
    )
    with Triton(config=config, workspace=Path(tempfile.mkdtemp(dir=Path.cwd())) / "workspace") as triton:
        triton.bind(
            model_name=given.MODEL_NAME,
            infer_func=infer,
            inputs=[Tensor(name=given.INPUT, dtype=np.float32, shape=given.ROW_SHAPE)],
            outputs=[Tensor(name=given.OUTPUT, dtype=np.float32, shape=(given.OUTPUT_SIZE,))],
            config=ModelConfig(
                max_batch_size=given.BATCH_MAX,
                batcher=DynamicBatcher(
                    max_queue_delay_microseconds=given.BATCH_WAIT_MS * 1000,
                    default_queue_policy=QueuePolicy(max_queue_size=given.QUEUE_MAX),
                ),
            ),
            strict=False,
        )
        triton.serve()
