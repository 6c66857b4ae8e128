"""Networks of the shapes that people serve, with random weights from a fixed seed: ResNet-50 and BERT-base, as ONNX.

https://arxiv.org/abs/1512.03385 (table 1), https://arxiv.org/abs/1810.04805 (BERT-base)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SEED = 11
OPSET, IR_VERSION = 17, 9
CLASSES = 1000

# Blocks, and channels inside of them, of each stage; four times as many come out.
STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
# What a branch adds to the sum is made smaller, as training does: else the sum grows with every block, beyond FP16.
BRANCH_SCALE = 0.3


@dataclass(frozen=True)
class Network:
    """A model file, and rows to ask it.

    Attributes:
        rows: one array for each input, in its order; count × row shape.
    """

    name: str
    path: Path
    rows: tuple[np.ndarray, ...]


def resnet50(folder: Path, *, size: int = 224, stages: Sequence[tuple[int, int]] = STAGES) -> Network:
    """Images in, 1,000 classes out; batch normalization folded into the convolutions, as exports have it."""
    graph = _Graph()
    last = graph.node("Relu", graph.conv("image", 3, 64, kernel=7, stride=2))
    last = graph.node("MaxPool", last, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for number, (blocks, width) in enumerate(stages):
        for block in range(blocks):
            last = _bottleneck(graph, last, channels, width, stride=2 if number and not block else 1)
            channels = width * 4
    flat = graph.node("Flatten", graph.node("GlobalAveragePool", last))
    graph.linear(flat, channels, CLASSES, name="classes")
    path = graph.save(
        folder / "resnet50.onnx", [("image", TensorProto.FLOAT, (3, size, size))], ("classes", (CLASSES,))
    )
    rows = np.random.default_rng(SEED + 1).standard_normal((16, 3, size, size), dtype=np.float32)
    return Network("resnet50", path, (rows,))


def bert_base(
    folder: Path, *, layers: int = 12, width: int = 768, heads: int = 12, length: int = 128, words: int = 30_522
) -> Network:
    """Word numbers and a mask in, the vector of the first word out."""
    graph = _Graph()
    known = graph.gather(graph.weights((words, width), fan_in=2500), "ids")
    last = graph.norm(graph.node("Add", known, graph.weights((1, length, width), fan_in=2500)), width)
    shut = graph.node("Sub", graph.constant(np.float32(1)), graph.node("Cast", "mask", to=TensorProto.FLOAT))
    shut = graph.node("Mul", shut, graph.constant(np.float32(-10_000)))
    shut = graph.node("Unsqueeze", shut, graph.constant(np.array([1, 2])))
    for _ in range(layers):
        heard = _attention(graph, last, shut, width=width, heads=heads, length=length)
        last = graph.norm(graph.node("Add", last, heard), width)
        inner = _gelu(graph, graph.linear(last, width, 4 * width))
        last = graph.norm(graph.node("Add", last, graph.linear(inner, 4 * width, width)), width)
    graph.node("Gather", last, graph.constant(np.array(0)), axis=1, name="vector")
    inputs = [("ids", TensorProto.INT64, (length,)), ("mask", TensorProto.INT64, (length,))]
    path = graph.save(folder / "bert_base.onnx", inputs, ("vector", (width,)))
    random = np.random.default_rng(SEED + 2)
    ids = random.integers(0, words, (16, length))
    mask = (np.arange(length) < random.integers(length // 4, length + 1, (16, 1))).astype(np.int64)
    return Network("bert_base", path, (ids, mask))


NETWORKS: dict[str, Callable[[Path], Network]] = {"resnet50": resnet50, "bert_base": bert_base}


def _bottleneck(graph: "_Graph", last: str, channels: int, width: int, *, stride: int) -> str:
    inner = graph.node("Relu", graph.conv(last, channels, width, kernel=1))
    inner = graph.node("Relu", graph.conv(inner, width, width, kernel=3, stride=stride))
    inner = graph.conv(inner, width, width * 4, kernel=1, scale=BRANCH_SCALE)
    if channels != width * 4 or stride != 1:
        last = graph.conv(last, channels, width * 4, kernel=1, stride=stride)
    return graph.node("Relu", graph.node("Add", inner, last))


def _attention(graph: "_Graph", last: str, shut: str, *, width: int, heads: int, length: int) -> str:
    def split(values: str, order: list[int]) -> str:
        shape = graph.constant(np.array([0, length, heads, width // heads]))
        return graph.node("Transpose", graph.node("Reshape", values, shape), perm=order)

    asked = split(graph.linear(last, width, width), [0, 2, 1, 3])
    keys = split(graph.linear(last, width, width), [0, 2, 3, 1])
    values = split(graph.linear(last, width, width), [0, 2, 1, 3])
    scores = graph.node("Mul", graph.node("MatMul", asked, keys), graph.constant(np.float32((heads / width) ** 0.5)))
    shares = graph.node("Softmax", graph.node("Add", scores, shut), axis=-1)
    heard = graph.node("Transpose", graph.node("MatMul", shares, values), perm=[0, 2, 1, 3])
    whole = graph.node("Reshape", heard, graph.constant(np.array([0, length, width])))
    return graph.linear(whole, width, width)


def _gelu(graph: "_Graph", values: str) -> str:
    curve = graph.node("Erf", graph.node("Mul", values, graph.constant(np.float32(0.5**0.5))))
    curve = graph.node("Add", curve, graph.constant(np.float32(1)))
    return graph.node("Mul", graph.node("Mul", values, curve), graph.constant(np.float32(0.5)))


class _Graph:
    """Nodes and weights, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(SEED)

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weights(self, shape: tuple[int, ...], *, fan_in: float, scale: float = 1.0) -> str:
        """He's initialisation, so that signals neither die nor explode."""
        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(scale * (2 / fan_in) ** 0.5)
        return self.constant(values)

    def conv(self, last: str, inside: int, outside: int, *, kernel: int, stride: int = 1, scale: float = 1.0) -> str:
        weights = self.weights((outside, inside, kernel, kernel), fan_in=inside * kernel**2, scale=scale)
        bias = self.constant(np.zeros(outside, np.float32))
        return self.node(
            "Conv", last, weights, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4
        )

    def linear(self, last: str, inside: int, outside: int, *, name: str = "") -> str:
        product = self.node("MatMul", last, self.weights((inside, outside), fan_in=2 * inside))
        return self.node("Add", product, self.constant(np.zeros(outside, np.float32)), name=name)

    def norm(self, last: str, width: int) -> str:
        ones, zeros = self.constant(np.ones(width, np.float32)), self.constant(np.zeros(width, np.float32))
        return self.node("LayerNormalization", last, ones, zeros, axis=-1)

    def gather(self, table: str, places: str) -> str:
        return self.node("Gather", table, places, axis=0)

    def save(
        self, path: Path, inputs: Sequence[tuple[str, int, tuple[int, ...]]], output: tuple[str, tuple[int, ...]]
    ) -> Path:
        """Write the model, unless it is there already."""
        name, shape = output
        graph = helper.make_graph(
            self._nodes,
            path.stem,
            [helper.make_tensor_value_info(name, kind, ["batch", *shape]) for name, kind, shape in inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, str(path))
        return path
