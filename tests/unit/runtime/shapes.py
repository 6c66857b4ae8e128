"""A model whose rows differ in their length, for the tests of the runtime."""

from pathlib import Path
from typing import Any

import msgspec
from onnx import TensorProto, helper

from nomadserve_runtime.engines.fake import Behaviour, FakeEngine
from nomadserve_runtime.engines.profiles import profiles_of
from nomadserve_runtime.tensors import Profile, TensorSpec
from tests.unit.runtime.models import save

TEXT = TensorSpec("text", "INT64", (-1,), ("length",))
MASK = TensorSpec("mask", "FP32", (-1,), ("length",))
PAIRS = TensorSpec("pairs", "FP32", (-1, 2))

UP_TO_8 = {"text": {"min": [1, 1], "opt": [4, 3], "max": [4, 8]}}
PROFILE = Profile(((1,),), ((3,),), ((8,),))
TENSORS: dict[str, Any] = {
    "inputs": [{"name": "text", "datatype": "INT64", "shape": [-1]}],
    "outputs": [{"name": "sums", "shape": [-1]}, {"name": "sum", "shape": [1]}],
}


def text_engine(*, batch_max: int = 4, **behaviour: Any) -> FakeEngine:
    """It answers `sums` = the sum of a row plus 0, 1, … for each of its elements, and `sum` = the first of them."""
    told: Behaviour = msgspec.convert({**TENSORS, **behaviour}, Behaviour)
    profiles = profiles_of([UP_TO_8], [tensor.spec() for tensor in told.inputs], title="it")
    return FakeEngine(told, batch_max=batch_max, profiles=profiles)


def write_text_model(path: Path) -> Path:
    """An ONNX model that does what `text_engine` does; its dimensions have names."""
    nodes = [
        helper.make_node("Cast", ["text"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers", "axis"], ["sum"], keepdims=1),
        helper.make_node("Shape", ["text"], ["shape"]),
        helper.make_node("Gather", ["shape", "second"], ["length_of"]),
        helper.make_node("Range", ["zero", "length_of", "one"], ["places"]),
        helper.make_node("Cast", ["places"], ["steps"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["sum", "steps"], ["sums"]),
    ]
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        *(helper.make_tensor(name, TensorProto.INT64, [], [n]) for name, n in (("zero", 0), ("one", 1), ("second", 1))),
    ]
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info("text", TensorProto.INT64, ["batch", "length"])],
        [
            helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["batch", "length"]),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", 1]),
        ],
        constants,
    )
    return save(path, graph)
