"""Small ONNX models, each with what makes it special."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str]
FLOAT = TensorProto.FLOAT


def tensor(name: str, shape: Shape, kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def write(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: Sequence[Any] = ()) -> Path:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(weights))
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def weights(dtype: str = "f4") -> Any:
    return numpy_helper.from_array(np.random.default_rng(7).random((8, 4)).astype(dtype), "W")


def write_product(path: Path, *, batch: int | str = "n", dtype: str = "f4") -> Path:
    """y = x W: 8 numbers in, 4 out."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    node = helper.make_node("MatMul", ["x", "W"], ["y"], name="product")
    return write(path, [node], [tensor("x", [batch, 8], kind)], [tensor("y", [batch, 4], kind)], [weights(dtype)])


def write_one(path: Path, operator: str, shape: Shape, *, kind: int = FLOAT, domain: str = "") -> Path:
    """One operator, one input, one output."""
    node = helper.make_node(operator, ["x"], ["y"], name="the_node", domain=domain)
    return write(path, [node], [tensor("x", shape, kind)], [tensor("y", shape, kind)])


def write_sum(path: Path) -> Path:
    """y = a + b, row by row."""
    node = helper.make_node("Add", ["a", "b"], ["y"], name="sum")
    return write(path, [node], [tensor("a", ["n", 8]), tensor("b", ["n", 8])], [tensor("y", ["n", 8])])


def write_reshape(path: Path) -> Path:
    """Takes any batch, and fixes it inside: right for one row only."""
    shape = numpy_helper.from_array(np.array([2, 4], "i8"), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], name="fixed_inside")
    return write(path, [node], [tensor("x", ["n", 8])], [tensor("y", [2, 4])], [shape])


def write_quantized(path: Path) -> Path:
    """y = x W in INT8, by quantization of its own."""
    scale = numpy_helper.from_array(np.array(0.02, "f4"), "scale")
    zero = numpy_helper.from_array(np.array(0, "i1"), "zero")
    nodes = [
        helper.make_node(kind, [source, "scale", "zero"], [target], name=target)
        for source, middle, end in (("x", "qx", "dx"), ("W", "qw", "dw"))
        for kind, source, target in (("QuantizeLinear", source, middle), ("DequantizeLinear", middle, end))
    ]
    nodes.append(helper.make_node("MatMul", ["dx", "dw"], ["y"], name="product"))
    return write(path, nodes, [tensor("x", ["n", 8])], [tensor("y", ["n", 4])], [weights(), scale, zero])


def write_apart(path: Path) -> Path:
    """The product, with its weights in `weights.bin` beside it."""
    onnx.save(
        onnx.load(str(write_product(path))),
        str(path),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return path


def write_deep(path: Path, *, layers: int) -> Path:
    """Convolutions with a softmax now and then: what a builder needs a second or more for."""
    rng, nodes, kernels, last = np.random.default_rng(7), [], [], "x"
    for number in range(layers):
        kernels.append(numpy_helper.from_array(rng.random((8, 8, 3, 3)).astype("f4"), f"w{number}"))
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        operator = "Softmax" if number % 3 == 0 else "Relu"
        nodes.append(helper.make_node(operator, [f"c{number}"], [f"r{number}"]))
        last = f"r{number}"
    return write(path, nodes, [tensor("x", ["n", 8, 32, 32])], [tensor(last, ["n", 8, 32, 32])], kernels)
