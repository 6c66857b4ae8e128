"""The models that every server gets: made here, with weights from a fixed seed, so the same everywhere."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

INPUT, OUTPUT, CLASSES = "x", "y", 10
SEED = 7

# Opset 17 and IR 9 are read by every ONNX Runtime that a peer may bring along.
OPSET, IR_VERSION = 17, 9

MLP_WIDTHS = (64, 512, 256, CLASSES)
# (channels, stride) of each 3×3 convolution: about 7 ms of one core for a row.
CONVOLUTIONS = ((32, 2), (64, 1), (64, 2), (128, 2), (256, 2), (256, 2))
IMAGE = (3, 224, 224)


@dataclass(frozen=True)
class Model:
    """A model file with rows to send and the scores that ONNX Runtime itself gives for them.

    Attributes:
        rows: count × row shape, float32.
        scores: count × 10.
    """

    name: str
    path: Path
    rows: np.ndarray
    scores: np.ndarray

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self.rows.shape[1:])


def make(name: str, folder: Path) -> Model:
    """Write the model `mlp` or `convnet` to `folder`, and its rows."""
    path = folder / f"{name}.onnx"
    onnx.save(MAKERS[name](np.random.default_rng(SEED)), path)
    shape, count = ROWS[name]
    rows = np.random.default_rng(SEED + 1).standard_normal((count, *shape), dtype=np.float32)
    scores = open_session(path).run([OUTPUT], {INPUT: rows})[0]
    return Model(name, path, rows, scores)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """The bare engine, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _mlp(random: np.random.Generator) -> onnx.ModelProto:
    nodes, weights, last = [], [], INPUT
    pairs = list(itertools.pairwise(MLP_WIDTHS))
    for number, (width_in, width_out) in enumerate(pairs):
        weights.append(_weights(random, f"w{number}", (width_in, width_out), fan_in=width_in))
        is_last = number == len(pairs) - 1
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [OUTPUT if is_last else f"m{number}"]))
        if not is_last:
            nodes.append(helper.make_node("Relu", [f"m{number}"], [f"r{number}"]))
        last = f"r{number}"
    return _model("mlp", nodes, weights, (MLP_WIDTHS[0],))


def _convnet(random: np.random.Generator) -> onnx.ModelProto:
    nodes, weights, last, channels_in = [], [], INPUT, IMAGE[0]
    for number, (channels, stride) in enumerate(CONVOLUTIONS):
        shape = (channels, channels_in, 3, 3)
        weights.append(_weights(random, f"w{number}", shape, fan_in=channels_in * 9))
        convolution: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": [1] * 4}
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], **convolution))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        last, channels_in = f"r{number}", channels
    weights.append(_weights(random, "head", (channels_in, CLASSES), fan_in=channels_in))
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "head"], [OUTPUT]))
    return _model("convnet", nodes, weights, IMAGE)


def _weights(random: np.random.Generator, name: str, shape: tuple[int, ...], *, fan_in: int) -> onnx.TensorProto:
    """He's initialisation, so that signals neither die nor explode."""
    values = random.standard_normal(shape) * np.sqrt(2 / fan_in)
    return numpy_helper.from_array(values.astype(np.float32), name)


def _model(
    name: str, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], row_shape: tuple[int, ...]
) -> onnx.ModelProto:
    rows = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", *row_shape])
    scores = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows", CLASSES])
    graph = helper.make_graph(nodes, name, [rows], [scores], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


MAKERS = {"mlp": _mlp, "convnet": _convnet}
# How many different rows are sent in turn: enough to show replies that go to the wrong client.
ROWS: dict[str, tuple[tuple[int, ...], int]] = {"mlp": ((MLP_WIDTHS[0],), 16), "convnet": (IMAGE, 4)}
