# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.0", "onnx>=1.17", "scikit-learn>=1.5", "threadpoolctl>=3.1"]
# ///
"""Train the two digits models and write them as ONNX files, with the held-out images to try them on.

    uv run examples/digits/export.py        # or `pip install onnx scikit-learn` and `python examples/digits/export.py`

The data is scikit-learn's `load_digits`: 1,797 scans of handwritten digits, 8x8 pixels of 0 to 16. Half of it trains,
half is held out; the split and every seed are fixed, so that a second run writes the same models.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

HERE = Path(__file__).resolve().parent
PIXEL_MAX = 16.0
OPSET, IR_VERSION = 17, 8  # both from 2022: any ONNX Runtime of today reads them

Layer = tuple[np.ndarray, np.ndarray]  # weights [inputs, outputs], bias [outputs]


def linear_layers(model: LogisticRegression) -> list[Layer]:
    return [(model.coef_.T, model.intercept_)]


def network_layers(model: MLPClassifier) -> list[Layer]:
    return list(zip(model.coefs_, model.intercepts_, strict=True))


def to_onnx(name: str, layers: list[Layer]) -> onnx.ModelProto:
    """Scale the pixels, then layer by layer with ReLU between them, then softmax: `image` in, `scores` out."""
    constants = [numpy_helper.from_array(np.array(1 / PIXEL_MAX, np.float32), "pixel_scale")]
    nodes = [helper.make_node("Mul", ["image", "pixel_scale"], ["hidden0"])]
    for number, (weights, bias) in enumerate(layers, start=1):
        constants += [
            numpy_helper.from_array(weights.astype(np.float32), f"weights{number}"),
            numpy_helper.from_array(bias.astype(np.float32), f"bias{number}"),
        ]
        last = number == len(layers)
        nodes += [
            helper.make_node("Gemm", [f"hidden{number - 1}", f"weights{number}", f"bias{number}"], [f"sum{number}"]),
            helper.make_node("Softmax", [f"sum{number}"], ["scores"], axis=-1)
            if last
            else helper.make_node("Relu", [f"sum{number}"], [f"hidden{number}"]),
        ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def check_against_sklearn(exported: onnx.ModelProto, trained: Any, images: np.ndarray) -> None:
    """Stop unless the exported model says what scikit-learn says, for every held-out image."""
    outputs: Any = ReferenceEvaluator(exported).run(None, {"image": images.astype(np.float32)})
    scores = np.asarray(outputs[0])
    expected = trained.predict_proba(images / PIXEL_MAX)
    difference = float(np.abs(scores - expected).max())
    if difference > 1e-5 or not np.array_equal(scores.argmax(1), expected.argmax(1)):
        raise SystemExit(f"error: {exported.graph.name} differs from scikit-learn by {difference:.1e}")
    print(f"{exported.graph.name}: largest difference to scikit-learn's own probabilities {difference:.1e}")


def images_json(images: np.ndarray, labels: np.ndarray) -> str:
    """One image a line: 64 pixels, row by row."""
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in images.astype(int).tolist())
    return f'{{"labels":{json.dumps(labels.tolist(), separators=(",", ":"))},\n"images":[\n{rows}\n]}}\n'


def main() -> None:
    digits = load_digits()
    train_images, test_images, train_labels, test_labels = train_test_split(
        digits.data, digits.target, test_size=0.5, random_state=0, stratify=digits.target
    )
    with threadpool_limits(1):  # more threads add up in another order: other last bits, other files
        linear = LogisticRegression(max_iter=1000).fit(train_images / PIXEL_MAX, train_labels)
        network = MLPClassifier((128,), alpha=0.1, max_iter=1000, random_state=0)
        network.fit(train_images / PIXEL_MAX, train_labels)

    (HERE / "models").mkdir(exist_ok=True)
    for name, trained, layers in (
        ("digits-v1", linear, linear_layers(linear)),
        ("digits-v2", network, network_layers(network)),
    ):
        exported = to_onnx(name, layers)
        check_against_sklearn(exported, trained, test_images)
        onnx.save(exported, HERE / "models" / f"{name}.onnx")
        right = int((trained.predict(test_images / PIXEL_MAX) == test_labels).sum())
        print(f"{name}: {right} of {len(test_labels)} held-out images right ({right / len(test_labels):.1%})")
    (HERE / "test-images.json").write_text(images_json(test_images, test_labels))


if __name__ == "__main__":
    main()
