"""Every engine through one suite, then what is particular to each."""

import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.engine import Engine, open_engine
from nomadserve_runtime.errors import CannotStart, WrongSetting
from nomadserve_runtime.tensors import TensorSpec
from tests.unit.runtime.engine_suite import EngineSuite
from tests.unit.runtime.models import save, slot_for, write_fake, write_sum_model, write_words_model
from tests.unit.runtime.trt.fake_cuda import Machine
from tests.unit.runtime.trt.fake_tensorrt_runtime import write_plan
from tests.unit.runtime.trt.gpu import plug_in

TENSORS: dict[str, Any] = {
    "inputs": [{"name": "x", "shape": [4]}],
    "outputs": [{"name": "y", "shape": [2]}],
}


def opened(engine: str, path: Path, *, batch_max: int = 8) -> Engine:
    return open_engine(ModelConfig(name="m", path=str(path), engine=engine, max_batch=batch_max, threads=1))


@pytest.fixture(params=["onnxruntime", "tensorrt", "fake"])
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The same model on every engine; the GPU is made up."""
    plug_in(monkeypatch, Machine())
    write: dict[str, Callable[[], Path]] = {
        "onnxruntime": lambda: write_sum_model(tmp_path / "sum.onnx"),
        "tensorrt": lambda: write_plan(tmp_path / "sum.plan"),
        "fake": lambda: write_fake(tmp_path / "sum.json", **TENSORS),
    }
    return opened(request.param, write[request.param]())


class TestEveryEngine(EngineSuite):
    pass


@pytest.mark.parametrize("name", ["onnxruntime", "fake"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match=r"none\.onnx"):
        opened(name, tmp_path / "none.onnx")


@pytest.mark.parametrize("name", ["onnxruntime", "fake"])
def test_a_corrupt_file_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "corrupt.onnx"
    path.write_bytes(b"\x00\x01\x02 nothing that any engine reads")
    with pytest.raises(WrongSetting, match=r"corrupt\.onnx"):
        opened(name, path)


# -- onnxruntime --------------------------------------------------------------------------------------------------


def load_onnx(path: Path, *, batch_max: int = 8) -> Engine:
    return opened("onnxruntime", path, batch_max=batch_max)


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


def test_an_input_whose_rows_may_differ_needs_a_profile(tmp_path: Path) -> None:
    path = write_sum_model(tmp_path / "m.onnx", inputs=(("text", ("length", 4)),))
    with pytest.raises(WrongSetting) as caught:
        load_onnx(path)
    assert caught.value.message == (
        f"the rows of `{path}` may differ, and nothing says how much: text FP32 [batch, length, 4]"
    )


def test_strings_go_in_and_come_out(tmp_path: Path) -> None:
    engine = load_onnx(write_words_model(tmp_path / "m.onnx", batch=3))
    assert [spec.datatype for spec in (*engine.inputs, *engine.outputs)] == ["BYTES", "BYTES", "INT64"]
    slot = slot_for(engine)
    slot.inputs[0][:] = [["kept"], ["from"], ["before"]]
    slot.inputs[0][:1] = "bird"
    engine.run(slot, 1)
    assert [array[:1].tolist() for array in slot.outputs] == [[["bird"]], [[2]]]
    assert slot.inputs[0].tolist() == [["bird"], [""], [""]], "rows that nobody asked for are blank"


def test_a_slot_forgets_strings_with_their_requests(tmp_path: Path) -> None:
    slot = slot_for(load_onnx(write_words_model(tmp_path / "m.onnx")))
    slot.inputs[0][:] = slot.outputs[0][:] = "long"
    slot.clear()
    assert {*slot.inputs[0].ravel(), *slot.outputs[0].ravel()} == {""}


def test_a_model_that_takes_no_empty_string_says_so(tmp_path: Path) -> None:
    path = write_words_model(tmp_path / "m.onnx", is_number=True)
    with pytest.raises(WrongSetting) as caught:
        load_onnx(path)
    assert caught.value.message.startswith(f"`{path}` fails on 8 rows of empty strings: ")


def test_a_type_that_is_not_served_is_named(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.BFLOAT16, ["batch", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    path = save(tmp_path / "m.onnx", helper.make_graph([cast], "cast", [x], [y]))
    with pytest.raises(WrongSetting) as caught:
        load_onnx(path)
    assert caught.value.message == f"input `x` of `{path}` is a tensor(bfloat16): that type is not served"


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
    engine = opened("fake", write_fake(tmp_path / "m.json", fail_on=666), batch_max=4)
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
        ('{"inputs": [{"name": "x", "shape": [0]}], "outputs": []}', "a size of 0"),
        ('{"inputs": [{"name": "x", "shape": [1], "datatype": "FP8"}], "outputs": []}', "unknown datatype `FP8`"),
    ],
)
def test_a_bad_description_of_a_fake_model_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(WrongSetting, match=problem):
        opened("fake", path)
