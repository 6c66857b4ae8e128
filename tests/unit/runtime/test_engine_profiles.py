"""Engines whose rows may differ in their shapes: what the configuration says of it, and what they compute."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.engine import Engine, open_engine, slot_for
from nomadserve_runtime.engines.profiles import batch_max_of, profiles_of
from nomadserve_runtime.errors import WrongSetting
from nomadserve_runtime.tensors import TensorSpec
from tests.unit.runtime.models import write_fake, write_sum_model
from tests.unit.runtime.shapes import MASK, PAIRS, TENSORS, TEXT, UP_TO_8, write_text_model


def write(kind: str, folder: Path) -> Path:
    if kind == "fake":
        return write_fake(folder / "text.json", **TENSORS)
    return write_text_model(folder / "text.onnx")


def opened(kind: str, path: Path, *, profiles: Any = (UP_TO_8,), max_batch: int = 4) -> Engine:
    return open_engine(ModelConfig(name="m", path=str(path), engine=kind, max_batch=max_batch, profiles=profiles))


@pytest.mark.parametrize("kind", ["fake", "onnxruntime"])
def test_rows_of_one_length_are_computed_and_then_rows_of_another(kind: str, tmp_path: Path) -> None:
    engine = opened(kind, write(kind, tmp_path))
    assert [spec.row_shape for spec in engine.inputs] == [(-1,)]
    assert [spec.row_shape for spec in engine.outputs] == [(-1,), (1,)]
    slot = slot_for(engine)
    for length in (8, 1, 3):
        slot.take_shapes(((length,),))
        rows = np.arange(2 * length).reshape(2, length)
        slot.inputs[0][:2] = rows
        engine.run(slot, 2)
        sums = rows.sum(axis=1, keepdims=True)
        assert slot.outputs[0][:2].tolist() == (sums + np.arange(length)).tolist()
        assert slot.outputs[1][:2].tolist() == sums.tolist()
    engine.close()


def test_an_onnx_model_tells_the_names_of_what_may_differ(tmp_path: Path) -> None:
    engine = opened("onnxruntime", write("onnxruntime", tmp_path))
    assert [str(spec) for spec in (*engine.inputs, *engine.outputs)] == [
        "text INT64 [batch, length]",
        "sums FP32 [batch, length]",
        "sum FP32 [batch, 1]",
    ]


@pytest.mark.parametrize("kind", ["fake", "onnxruntime"])
def test_a_profile_bounds_the_batch_too(kind: str, tmp_path: Path) -> None:
    assert opened(kind, write(kind, tmp_path), max_batch=32).batch_max == 4
    assert opened(kind, write(kind, tmp_path), max_batch=2).batch_max == 2


def test_the_batch_is_that_of_the_largest_profile_and_of_its_smallest_input() -> None:
    small = {"a": {"min": [1], "opt": [1], "max": [8]}}
    large = {"a": {"min": [1], "opt": [1], "max": [64]}, "b": {"min": [1], "opt": [1], "max": [16]}}
    assert [batch_max_of(given, 32) for given in ([], [small], [small, large])] == [32, 8, 16]


def test_profiles_of_fixed_rows_bound_nothing_but_the_batch(tmp_path: Path) -> None:
    path = write_sum_model(tmp_path / "m.onnx", inputs=(("x", (4,)),))
    engine = opened("onnxruntime", path, profiles=({"x": {"min": [1, 4], "opt": [2, 4], "max": [2, 4]}},))
    assert engine.profiles == ()
    assert engine.batch_max == 2


def bounds(least: list[int], usual: list[int], most: list[int]) -> dict[str, list[int]]:
    return {"min": least, "opt": usual, "max": most}


EXAMPLE = '[{"text": {"min": [1, 1], "opt": [8, 64], "max": [32, 512]}}]'


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ([], "the rows of it may differ, and nothing says how much: text INT64 [batch, length]", EXAMPLE),
        ([{}], "profile 1 of it does not say which sizes `text` has", EXAMPLE),
        ([{"txt": bounds([1, 1], [1, 1], [1, 1])}], "profile 1 of it names `txt`, which is no input", "inputs: text"),
        ([{"text": {"min": [1, 1]}}], "profile 1 of it has not just `min`, `opt` and `max` for `text`", EXAMPLE),
        (
            [{"text": bounds([1], [1, 1], [1, 1])}],
            "profile 1 of it gives [1] as `min` of the input text INT64 [batch, length]",
            EXAMPLE,
        ),
        (
            [{"text": bounds([1, 1], [0, 1], [1, 1])}],
            "profile 1 of it gives [0, 1] as `opt` of the input text INT64 [batch, length]",
            EXAMPLE,
        ),
        (
            [UP_TO_8, {"text": bounds([1, 1], [1, 9], [4, 8])}],
            "profile 2 of it: `min`, `opt` and `max` of `text` are not in that order",
            EXAMPLE,
        ),
    ],
)
def test_a_profile_that_does_not_fit_is_refused(given: list[Any], message: str, hint: str) -> None:
    with pytest.raises(WrongSetting) as caught:
        profiles_of(given, [TEXT], title="it")
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_sizes_of_one_name_that_differ_in_a_profile_are_refused() -> None:
    given = {"text": bounds([1, 1], [1, 2], [1, 3]), "mask": bounds([1, 1], [1, 2], [1, 4])}
    with pytest.raises(WrongSetting) as caught:
        profiles_of([given], [TEXT, MASK], title="it")
    assert caught.value.message == "profile 1 of it has `length` as 3 and as 4 in `max`"


def test_fixed_sizes_and_inputs_need_not_be_named_but_must_agree() -> None:
    fixed = TensorSpec("fixed", "FP32", (3,))
    [found] = profiles_of([{"pairs": bounds([1, 1, 2], [1, 2, 2], [1, 9, 2])}], [fixed, PAIRS], title="it")
    assert (found.least, found.most) == (((3,), (1, 2)), ((3,), (9, 2)))
    with pytest.raises(WrongSetting, match=r"gives \[1, 2, 3\] as `opt` of the input pairs FP32 \[batch, any, 2\]"):
        profiles_of([{"pairs": bounds([1, 1, 2], [1, 2, 3], [1, 9, 2])}], [fixed, PAIRS], title="it")


def test_a_model_that_fails_at_a_bound_does_not_start(tmp_path: Path) -> None:
    too_far = {"text": bounds([1, 0], [1, 1], [1, 2])}
    path = write_sum_model(tmp_path / "m.onnx", inputs=(("text", ("length", 2)), ("more", (2,))))
    with pytest.raises(WrongSetting, match="does not say which sizes"):
        opened("onnxruntime", path, profiles=({},))
    with pytest.raises(WrongSetting, match="gives"):
        opened("onnxruntime", path, profiles=(too_far,))
