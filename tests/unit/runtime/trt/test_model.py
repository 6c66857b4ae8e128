import hashlib
from pathlib import Path

import pytest

from nomadserve_runtime.engines.trt.model import read_model
from nomadserve_runtime.errors import WrongSetting
from tests.unit.runtime.trt.models import write_apart, write_product, write_quantized


def test_the_fingerprint_of_a_whole_model_is_that_of_its_file(tmp_path: Path) -> None:
    path = write_product(tmp_path / "m.onnx")
    found = read_model(path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.weight_files, found.is_quantized, found.formats) == ((), False, {"FLOAT"})


def test_weights_in_files_of_their_own_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    path = write_apart(tmp_path / "m.onnx")
    before = read_model(path)
    assert before.weight_files == ("weights.bin",)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    assert read_model(path).sha256 != before.sha256


def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    path = write_apart(tmp_path / "m.onnx")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(WrongSetting, match=r"keeps weights in the file `weights\.bin`, which is missing") as caught:
        read_model(path)
    assert "copy it there" in caught.value.hint


def test_number_formats_and_quantization_are_seen(tmp_path: Path) -> None:
    assert read_model(write_product(tmp_path / "half.onnx", dtype="f2")).formats == {"FLOAT16"}
    quantized = read_model(write_quantized(tmp_path / "q.onnx"))
    assert quantized.is_quantized
    assert "INT8" in quantized.formats


@pytest.mark.parametrize("content", [b"", b"not a model" * 30], ids=["empty", "text"])
def test_what_is_no_onnx_model_is_wrong_input(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(WrongSetting, match="ONNX model"):
        read_model(tmp_path / "m.onnx")


def test_a_model_cut_off_half_way_is_wrong_input(tmp_path: Path) -> None:
    path = write_product(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:120])
    with pytest.raises(WrongSetting, match="is no whole ONNX model"):
        read_model(path)
