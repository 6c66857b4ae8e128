"""An ONNX file, looked at without TensorRT: what its bytes are, which files it needs, which number formats it holds."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nomadserve_runtime.errors import CannotStart, WrongSetting


@dataclass(frozen=True)
class OnnxModel:
    """What decides how a model is built.

    Attributes:
        sha256: of the file and of all files that it keeps weights in, with their names.
        formats: element types of its tensors, as ONNX calls them: "FLOAT16", "FLOAT8E4M3FN".
        is_quantized: whether it holds quantization of its own (QuantizeLinear, DequantizeLinear).
        weight_files: relative to the folder of the model.
    """

    path: Path
    sha256: str
    formats: frozenset[str]
    is_quantized: bool
    weight_files: tuple[str, ...]


def read_model(path: Path) -> OnnxModel:
    """Look at the ONNX file at `path`; its weights are hashed where they lie, not loaded.

    Raises:
        WrongSetting: it is no ONNX model, or a file with its weights is missing.
        CannotStart: the package onnx is not there.
    """
    onnx = require_onnx()
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own class, which onnx does not name
        raise WrongSetting(f"`{path}` is no whole ONNX model", hint="export it again, or copy it again") from error
    if not proto.graph.node:
        raise WrongSetting(f"`{path}` is no ONNX model: it has no nodes", hint="export it again")
    tensors = list(_tensors(proto.graph))
    weight_files = tuple(sorted({_location(tensor) for tensor in tensors if tensor.external_data}))
    names = onnx.TensorProto.DataType
    operators = {node.op_type for node in _nodes(proto.graph)}
    inputs = (value.type.tensor_type.elem_type for value in proto.graph.input)
    return OnnxModel(
        path=path,
        sha256=_fingerprint(path, weight_files),
        formats=frozenset(names.Name(number) for number in {*(tensor.data_type for tensor in tensors), *inputs}),
        is_quantized=bool(operators & {"QuantizeLinear", "DequantizeLinear"}),
        weight_files=weight_files,
    )


def require_onnx() -> Any:
    """The package onnx."""
    try:
        import onnx
    except ImportError as error:
        raise CannotStart("building needs the package onnx, which is not there", hint="`pip install onnx`") from error
    return onnx


def _nodes(graph: Any) -> Iterator[Any]:
    """Every node, those inside of branches and loops included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _nodes(inner)


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in _nodes(graph):
        for attribute in node.attribute:
            yield from (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ()))


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor with values: weights, and constants inside of nodes."""
    for inner in _graphs(graph):
        yield from inner.initializer
    for node in _nodes(graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _location(tensor: Any) -> str:
    return next((str(entry.value) for entry in tensor.external_data if entry.key == "location"), "")


def _fingerprint(path: Path, weight_files: tuple[str, ...]) -> str:
    """One hash of the model; it equals the hash of the file alone where that holds all weights."""
    if not weight_files:
        return _sha256(path)
    whole = hashlib.sha256(_sha256(path).encode())
    for name in weight_files:
        file = path.parent / name
        if not file.is_file():
            raise WrongSetting(
                f"`{path.name}` keeps weights in the file `{name}`, which is missing in `{path.parent}`",
                hint="copy it there, or export the model with its weights inside (up to 2 GB)",
            )
        whole.update(f"\n{name} {_sha256(file)}".encode())
    return whole.hexdigest()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WrongSetting(f"can't read `{path}`: {error.strerror}", hint="check the path of the model") from error
