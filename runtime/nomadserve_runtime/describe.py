"""What the protocol's clients are told of a model: metadata, configuration and statistics.

All that `tritonclient` and `perf_analyzer` read; the configuration is the part of Triton's that is true here.
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

import re
from collections.abc import Sequence
from typing import Any

from nomadserve_runtime.calibration import BatchTime
from nomadserve_runtime.calls import Model
from nomadserve_runtime.metrics import ModelMetrics
from nomadserve_runtime.tensors import TEXT, TensorSpec

Content = dict[str, Any]

EXTENSIONS = ("binary_tensor_data", "model_configuration", "schedule_policy", "statistics")
REPOSITORY_EXTENSION = "model_repository"


def version_number(version: str) -> str:
    """The version as the protocol's clients want it, a number: 7 for `v7`; 1 where there is none in it.

    `perf_analyzer` ends with "stoll" when the statistics have another one.
    """
    digits = re.search(r"\d+", version)
    return digits[0] if digits else "1"


def metadata(model: Model, *, version: str) -> Content:
    """Its inputs and outputs; -1 stands for the rows."""
    engine = model.batcher.engine
    return {
        "name": model.name,
        "versions": [version],
        "platform": engine.platform,
        "inputs": [_tensor(spec) for spec in engine.inputs],
        "outputs": [_tensor(spec) for spec in engine.outputs],
    }


def configuration(model: Model) -> Content:
    """How it is run; the shapes are those of one row."""
    batcher = model.batcher
    return {
        "name": model.name,
        "platform": batcher.engine.platform,
        "backend": "nomadserve",
        "max_batch_size": batcher.rows_max,
        "input": [_tensor_configuration(spec) for spec in batcher.engine.inputs],
        "output": [_tensor_configuration(spec) for spec in batcher.engine.outputs],
        "instance_group": [{"count": batcher.engine.parallel}],
        "dynamic_batching": {
            "preferred_batch_size": [batcher.engine.batch_max],
            "max_queue_delay_microseconds": round(batcher.delay_s * 1e6),
        },
        "response_cache": {"enable": False},
        "model_transaction_policy": {"decoupled": False},
    }


def statistics(model: Model, *, version: str) -> Content:
    """Sums since the start, of requests that were answered; and the calibration, which is ours."""
    metrics = model.metrics
    answered = metrics.outcome["ok"].value
    stages = metrics.stages.seconds()
    return {
        "name": model.name,
        "version": version_number(version),
        "inference_count": metrics.rows.value,
        "execution_count": metrics.batch_rows.count,
        "inference_stats": {
            "success": _duration(answered, metrics.request_seconds.total),
            "fail": _duration(_failed(metrics), 0.0),
            "queue": _duration(answered, stages["queue"]),
            "compute_input": _duration(answered, stages["receive"]),
            "compute_infer": _duration(answered, stages["engine"]),
            "compute_output": _duration(answered, stages["reply"]),
            "cache_hit": _duration(0, 0.0),
            "cache_miss": _duration(0, 0.0),
        },
        "batch_stats": [],
        "calibration": _calibration(model),
    }


def _failed(metrics: ModelMetrics) -> int:
    return sum(metrics.outcome[word].value for word in ("failed", "expired", "refused"))


def _calibration(model: Model) -> Content:
    calibration = model.batcher.calibration
    return {
        "is_inline": calibration.is_inline,
        "hop_ns": _ns(calibration.hop_s),
        "batches": _batches(calibration.table),
        **_by_shapes(model),
    }


def _batches(table: Sequence[BatchTime]) -> list[Content]:
    return [{"rows": line.rows, "ns": _ns(line.seconds)} for line in table]


def _by_shapes(model: Model) -> Content:
    """The tables of each row shape that was timed, where they may differ."""
    names = [spec.name for spec in model.batcher.engine.inputs]
    tables = [
        {"row_shapes": dict(zip(names, times.shapes, strict=True)), "batches": _batches(times.table)}
        for times in model.batcher.calibration.by_shapes
    ]
    return {"by_shapes": tables} if tables else {}


def _tensor(spec: TensorSpec) -> Content:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.batch_shape)}


def _tensor_configuration(spec: TensorSpec) -> Content:
    # Triton's configuration has a name of its own for BYTES: `DataType` in its model_config.proto.
    name = "STRING" if spec.dtype == TEXT else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{name}", "dims": list(spec.row_shape)}


def _duration(count: int, seconds: float) -> Content:
    return {"count": count, "ns": _ns(seconds)}


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
