import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from nomadserve_runtime.engines.trt import half
from nomadserve_runtime.engines.trt.half import convert_to_fp16
from nomadserve_runtime.errors import CannotStart, WrongSetting
from tests.unit.runtime.trt.models import write_deep, write_one, write_product

DIGITS = Path(__file__).parents[4] / "examples" / "digits" / "models" / "digits-v2.onnx"


def outputs(path: Path, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: rows})
    return np.asarray(output)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "half").mkdir()
    return tmp_path / "half"


def test_a_converted_model_answers_almost_the_same_in_the_same_types(folder: Path) -> None:
    rows = np.random.default_rng(7).integers(0, 17, (64, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(DIGITS), providers=["CPUExecutionProvider"])
    rows = rows.reshape(64, *session.get_inputs()[0].shape[1:])
    before, after = outputs(DIGITS, rows), outputs(convert_to_fp16(DIGITS, folder), rows)
    assert after.dtype == before.dtype == np.float32
    assert after == pytest.approx(before, abs=0.01)
    assert not np.array_equal(after, before), "it was computed in another format"


def test_all_weights_are_halved(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(str(convert_to_fp16(write_product(tmp_path / "m.onnx"), folder)))
    assert {weight.data_type for weight in model.graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_a_large_model_keeps_its_weights_beside_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half, "INSIDE_NBYTES_MAX", 0)
    source = write_deep(tmp_path / "m.onnx", layers=2)
    converted = convert_to_fp16(source, folder)
    assert (folder / "m.onnx.weights").stat().st_size > 2000
    rows = np.ones((3, 8, 32, 32), np.float32)
    assert outputs(converted, rows) == pytest.approx(outputs(source, rows), abs=0.01)


def test_without_the_converter_the_way_out_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime.transformers.float16", None)
    with pytest.raises(CannotStart, match="needs a model in FP16 here, or the package onnxruntime") as caught:
        convert_to_fp16(write_product(tmp_path / "m.onnx"), folder)
    assert "pip install onnxruntime" in caught.value.hint


def test_what_the_converter_refuses_is_wrong_input(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no such thing\nand more of it")

    monkeypatch.setattr("onnxruntime.transformers.float16.convert_float_to_float16", refuse)
    with pytest.raises(WrongSetting, match=r"`m\.onnx` can't be converted to FP16: no such thing$") as caught:
        convert_to_fp16(write_one(tmp_path / "m.onnx", "Relu", ["n", 8]), folder)
    assert "modelopt" in caught.value.hint
