"""Every engine through one suite, then what is particular to each."""

import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nomadserve_runtime.engine import Engine, open_engine
from nomadserve_runtime.errors import CannotStart, WrongSetting
from nomadserve_runtime.tensors import TensorSpec
from tests.unit.runtime.models import save, slot_for, write_fake, write_sum_model

TENSORS: dict[str, Any] = {
    "inputs": [{"name": "x", "shape": [4]}],
    "outputs": [{"name": "y", "shape": [2]}],
}


@pytest.fixture(params=["onnxruntime", "fake"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """The same model on every engine: a row of four numbers in; their sum, and their sum plus one, out."""
    write: dict[str, Callable[[], Path]] = {
        "onnxruntime": lambda: write_sum_model(tmp_path / "sum.onnx"),
        "fake": lambda: write_fake(tmp_path / "sum.json", **TENSORS),
    }
    return open_engine(request.param, write[request.param](), batch_max=8, threads=1)


def test_an_engine_knows_its_tensors(engine: Engine) -> None:
    assert engine.inputs == (TensorSpec("x", "FP32", (4,)),)
    assert engine.outputs == (TensorSpec("y", "FP32", (2,)),)
    assert engine.batch_max == 8


def test_host_arrays_have_the_shape_and_type_asked_for(engine: Engine) -> None:
    array = engine.host_array((8, 3), np.dtype(np.int16))
    assert (array.shape, array.dtype, array.flags.c_contiguous) == ((8, 3), np.dtype(np.int16), True)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_each_row_is_computed_from_the_same_row(engine: Engine, rows: int) -> None:
    slot = slot_for(engine)
    slot.inputs[0][:] = np.arange(32).reshape(8, 4)
    engine.run(slot, rows)
    sums = np.arange(32).reshape(8, 4).sum(axis=1)[:rows]
    assert slot.outputs[0][:rows].tolist() == [[total, total + 1] for total in sums]


def test_rows_beyond_the_batch_are_not_written(engine: Engine) -> None:
    slot = slot_for(engine)
    slot.inputs[0][:] = 1
    slot.outputs[0][:] = -7
    engine.run(slot, 2)
    assert slot.outputs[0][2:].tolist() == [[-7, -7]] * 6


def test_batches_do_not_leave_anything_behind(engine: Engine) -> None:
    slot = slot_for(engine)
    for value in (1.0, 2.0):
        slot.inputs[0][:] = value
        engine.run(slot, 8)
        assert slot.outputs[0][:, 0].tolist() == [4 * value] * 8


def test_an_engine_can_be_closed(engine: Engine) -> None:
    engine.close()


def test_an_engine_that_is_not_there_yet_is_named() -> None:
    with pytest.raises(WrongSetting) as caught:
        open_engine("tensorrt", Path("m.plan"), batch_max=1, threads=0)
    assert caught.value.message == "the engine `tensorrt` is not there yet"


@pytest.mark.parametrize("name", ["onnxruntime", "fake"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match=r"none\.onnx"):
        open_engine(name, tmp_path / "none.onnx", batch_max=1, threads=0)


@pytest.mark.parametrize("name", ["onnxruntime", "fake"])
def test_a_corrupt_file_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "corrupt.onnx"
    path.write_bytes(b"\x00\x01\x02 nothing that any engine reads")
    with pytest.raises(WrongSetting, match=r"corrupt\.onnx"):
        open_engine(name, path, batch_max=1, threads=0)


# -- onnxruntime --------------------------------------------------------------------------------------------------


def load_onnx(path: Path, *, batch_max: int = 8) -> Engine:
    return open_engine("onnxruntime", path, batch_max=batch_max, threads=1)


def test_a_fixed_batch_takes_the_place_of_the_configured_one_and_is_padded(tmp_path: Path) -> None:
    engine = load_onnx(write_sum_model(tmp_path / "m.onnx", batch=4), batch_max=32)
    assert engine.batch_max == 4
    slot = slot_for(engine)
    slot.inputs[0][:] = 5
    engine.run(slot, 3)
    assert slot.outputs[0][:3, 0].tolist() == [20, 20, 20]
    assert slot.inputs[0][3].tolist() == [0, 0, 0, 0]


def test_a_batch_of_one_is_served_one_by_one(tmp_path: Path) -> None:
    engine = load_onnx(write_sum_model(tmp_path / "m.onnx", batch=1))
    assert engine.batch_max == 1


@pytest.mark.parametrize(
    ("kind", "datatype"),
    [
        (TensorProto.BOOL, "BOOL"),
        (TensorProto.UINT8, "UINT8"),
        (TensorProto.INT32, "INT32"),
        (TensorProto.INT64, "INT64"),
        (TensorProto.FLOAT16, "FP16"),
        (TensorProto.DOUBLE, "FP64"),
    ],
)
def test_numbers_of_all_kinds_pass(kind: int, datatype: str, tmp_path: Path) -> None:
    engine = load_onnx(write_sum_model(tmp_path / "m.onnx", kind=kind))
    assert [spec.datatype for spec in (*engine.inputs, *engine.outputs)] == [datatype, datatype]
    slot = slot_for(engine)
    slot.inputs[0][:] = 1
    engine.run(slot, 2)
    assert slot.outputs[0][:2].tolist() == ([[True, True]] * 2 if datatype == "BOOL" else [[4, 5]] * 2)


def test_several_inputs_of_several_ranks_pass(tmp_path: Path) -> None:
    engine = load_onnx(write_sum_model(tmp_path / "m.onnx", inputs=(("a", (2, 3)), ("b", (1,)))))
    assert [spec.row_shape for spec in engine.inputs] == [(2, 3), (1,)]
    slot = slot_for(engine)
    slot.inputs[0][:], slot.inputs[1][:] = 1, 10
    engine.run(slot, 2)
    assert slot.outputs[0][:2, 0].tolist() == [16, 16]


def test_an_input_with_another_dynamic_dimension_is_refused(tmp_path: Path) -> None:
    path = write_sum_model(tmp_path / "m.onnx", inputs=(("text", ("length", 4)),))
    with pytest.raises(WrongSetting) as caught:
        load_onnx(path)
    assert caught.value.message == (
        f"input `text` of `{path}` has the shape [batch, length, 4]: only the first dimension, the batch, may be "
        "dynamic"
    )


def test_strings_are_refused(tmp_path: Path) -> None:
    text = helper.make_tensor_value_info("text", TensorProto.STRING, ["batch", 1])
    out = helper.make_tensor_value_info("out", TensorProto.STRING, ["batch", 1])
    path = save(
        tmp_path / "m.onnx",
        helper.make_graph([helper.make_node("Identity", ["text"], ["out"])], "strings", [text], [out]),
    )
    with pytest.raises(WrongSetting) as caught:
        load_onnx(path)
    assert caught.value.message == f"input `text` of `{path}` is a tensor(string): strings are not served yet"


def reduced_over_the_batch(path: Path) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)
    return save(path, helper.make_graph([node], "reduced", [x], [y], [axes]))


def test_an_output_without_the_batch_is_refused(tmp_path: Path) -> None:
    path = reduced_over_the_batch(tmp_path / "m.onnx")
    with pytest.raises(WrongSetting) as caught:
        load_onnx(path)
    assert caught.value.message == (
        f"output `y` of `{path}` has the shape [1, 4] for 8 rows: its first dimension must be the batch"
    )


def test_output_shapes_that_the_file_leaves_open_are_found_out(tmp_path: Path) -> None:
    path = write_sum_model(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    for dimension in model.graph.output[0].type.tensor_type.shape.dim:
        dimension.Clear()
        dimension.dim_param = "unknown"
    onnx.save(model, str(path))
    assert load_onnx(path).outputs == (TensorSpec("y", "FP32", (2,)),)


def test_a_missing_onnxruntime_names_the_way_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sum_model(tmp_path / "m.onnx")
    real_import = builtins.__import__

    def without_onnxruntime(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_onnxruntime)
    with pytest.raises(CannotStart) as caught:
        load_onnx(path)
    assert caught.value.hint == "`pip install 'nomadserve[onnxruntime]'`"
    assert caught.value.exit_code == 1


# -- fake ---------------------------------------------------------------------------------------------------------


def test_a_fake_model_fails_on_the_row_it_is_told_to(tmp_path: Path) -> None:
    engine = open_engine("fake", write_fake(tmp_path / "m.json", fail_on=666), batch_max=4, threads=0)
    slot = slot_for(engine)
    slot.inputs[0][:, 0] = [1, 2, 666, 3]
    engine.run(slot, 2)
    with pytest.raises(RuntimeError, match="a row starts with 666"):
        engine.run(slot, 3)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", "missing required field `inputs`"),
        ('{"inputs": [], "outputs": []}', "length >= 1"),
        ('{"inputs": [{"name": "x", "shape": [0]}], "outputs": []}', "`int` >= 1"),
        ('{"inputs": [{"name": "x", "shape": [1], "datatype": "FP8"}], "outputs": []}', "unknown datatype `FP8`"),
    ],
)
def test_a_bad_description_of_a_fake_model_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(WrongSetting, match=problem):
        open_engine("fake", path, batch_max=4, threads=0)
