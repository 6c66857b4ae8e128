"""Engines and model files for the tests of the runtime."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper

from nomadserve_runtime.engines.fake import Behaviour, FakeEngine
from nomadserve_runtime.slots import Slot

ONE_NUMBER: dict[str, Any] = {"inputs": [{"name": "x", "shape": [1]}], "outputs": [{"name": "y", "shape": [1]}]}


def fake_engine(*, batch_max: int = 4, **behaviour: Any) -> FakeEngine:
    """A fake engine; one FP32 number in and one out, where not told otherwise. It answers y = x."""
    return FakeEngine(msgspec.convert({**ONE_NUMBER, **behaviour}, Behaviour), batch_max=batch_max)


class GatedEngine(FakeEngine):
    """A fake engine that runs a batch only when the test lets it.

    Attributes:
        batches: rows of each batch that started, in order.
    """

    def __init__(self, *, batch_max: int = 4, **behaviour: Any) -> None:
        super().__init__(msgspec.convert({**ONE_NUMBER, **behaviour}, Behaviour), batch_max=batch_max)
        self.batches: list[int] = []
        self._gate = threading.Semaphore(0)

    def let_run(self, batches: int) -> None:
        """Let that many batches run to their end."""
        self._gate.release(batches)

    def run(self, slot: Slot, rows: int) -> None:
        self.batches.append(rows)
        assert self._gate.acquire(timeout=20), "the test never let this batch run"
        super().run(slot, rows)


def write_fake(path: Path, **behaviour: Any) -> Path:
    """The file of a fake model; as `fake_engine`."""
    path.write_bytes(msgspec.json.encode({**ONE_NUMBER, **behaviour}))
    return path


def write_sum_model(
    path: Path,
    *,
    batch: int | str = "batch",
    inputs: Sequence[tuple[str, Sequence[int | str]]] = (("x", (4,)),),
    kind: int = TensorProto.FLOAT,
    outputs: int = 2,
) -> Path:
    """An ONNX model that computes what a fake engine with these tensors does: the sum of a row, plus 0, 1, …"""
    nodes, sums = [], []
    for name, _ in inputs:
        nodes += [
            helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", [f"{name}_float"], [f"{name}_flat"], axis=1),
            helper.make_node("ReduceSum", [f"{name}_flat", "axis"], [f"{name}_sum"], keepdims=1),
        ]
        sums.append(f"{name}_sum")
    nodes += [
        helper.make_node("Sum", sums, ["total"]),
        helper.make_node("Add", ["total", "places"], ["y_float"]),
        helper.make_node("Cast", ["y_float"], ["y"], to=kind),
    ]
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info(name, kind, [batch, *shape]) for name, shape in inputs],
        [helper.make_tensor_value_info("y", kind, [batch, outputs])],
        [
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("places", TensorProto.FLOAT, [outputs], np.arange(outputs, dtype=np.float32)),
        ],
    )
    return save(path, graph)


def write_words_model(path: Path, *, batch: int | str = "batch", is_number: bool = False) -> Path:
    """An ONNX model of strings: `same` is its input `word`, `place` is 1 for "cat", 2 for "bird", else 0.

    is_number: it reads words as numbers into `place`, and fails on all that is none.
    """
    word = helper.make_tensor_value_info("word", TensorProto.STRING, [batch, 1])
    same = helper.make_tensor_value_info("same", TensorProto.STRING, [batch, 1])
    place = helper.make_tensor_value_info("place", TensorProto.INT64, [batch, 1])
    keys = {"keys_strings": ["cat", "bird"], "values_int64s": [1, 2], "default_int64": 0}
    nodes = [
        helper.make_node("Identity", ["word"], ["same"]),
        helper.make_node("Cast", ["word"], ["place"], to=TensorProto.INT64)
        if is_number
        else helper.make_node("LabelEncoder", ["word"], ["place"], domain="ai.onnx.ml", **keys),
    ]
    return save(path, helper.make_graph(nodes, "words", [word], [same, place]))


def save(path: Path, graph: onnx.GraphProto) -> Path:
    """Write a graph in a form that every supported onnxruntime reads."""
    operators = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=operators, ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def slot_for(engine: FakeEngine | Any) -> Slot:
    """A slot of the engine's own size."""
    return Slot(inputs=engine.inputs, outputs=engine.outputs, capacity=engine.batch_max, host_array=engine.host_array)
