"""Plans whose rows differ in their shapes from request to request, on a made-up GPU."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomadserve_runtime.engine import slot_for
from nomadserve_runtime.engines.trt.engine import TrtEngine
from nomadserve_runtime.slots import Slot
from nomadserve_runtime.tensors import Profile, TensorSpec
from tests.unit.runtime.trt.fake_cuda import Machine
from tests.unit.runtime.trt.fake_tensorrt_runtime import write_plan
from tests.unit.runtime.trt.gpu import opening, plug_in

TEXT: dict[str, Any] = {
    "inputs": [{"name": "text", "shape": [-1, -1], "dtype": "INT64"}],
    "outputs": [{"name": "steps", "shape": [-1, -1]}, {"name": "sum", "shape": [-1, 1]}],
    "profiles": [{"text": [[1, 1], [4, 3], [8, 6]]}],
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    plug_in(monkeypatch, machine)
    return machine


@pytest.fixture
def engine(machine: Machine, tmp_path: Path) -> Iterator[TrtEngine]:
    with opening(machine, write_plan(tmp_path / "m.plan", **TEXT)) as engine:
        yield engine


def asked(engine: TrtEngine, slot: Slot, *, rows: int, length: int, value: int = 1) -> None:
    slot.take_shapes(((length,),))
    slot.inputs[0][:] = value
    engine.run(slot, rows)
    assert slot.outputs[0].shape == (8, length)
    assert slot.outputs[0][:rows].tolist() == [[value * length + place for place in range(length)]] * rows
    assert slot.outputs[1][:rows].tolist() == [[value * length]] * rows


def test_the_plan_says_which_sizes_are_open_and_how_far(engine: TrtEngine) -> None:
    assert engine.inputs == (TensorSpec("text", "INT64", (-1,)),)
    assert engine.outputs == (TensorSpec("steps", "FP32", (-1,)), TensorSpec("sum", "FP32", (1,)))
    assert engine.profiles == (Profile(((1,),), ((3,),), ((6,),)),)
    assert engine.output_shapes_max == ((6,), (1,))
    assert engine.batch_max == 8


def test_batches_of_different_lengths_follow_each_other(engine: TrtEngine) -> None:
    slots = [slot_for(engine), slot_for(engine)]
    for turn in range(12):
        asked(engine, slots[turn % 2], rows=1 + turn % 8, length=1 + turn % 6, value=turn)


def test_they_run_without_graphs_and_take_times_of_their_own(machine: Machine, engine: TrtEngine) -> None:
    asked(engine, slot_for(engine), rows=8, length=6)
    assert (machine.launches, engine.graph_failures) == (0, 0)
    assert engine.known_seconds(8) is None
    assert [engine.run_rows(rows) for rows in (1, 8)] == [1, 8]


def test_rows_go_into_the_smallest_profile_that_takes_them(machine: Machine, tmp_path: Path) -> None:
    profiles = [{"text": [[1, 1], [4, 16], [8, 32]]}, {"text": [[1, 1], [4, 2], [8, 4]]}]
    with opening(machine, write_plan(tmp_path / "m.plan", **(TEXT | {"profiles": profiles}))) as engine:
        shaped: Any = engine._workers[0].pipeline._launcher
        assert [shaped._profile_for(((length,),)) for length in (1, 4, 5, 32)] == [1, 1, 0, 0]
        del shaped
        for length in (1, 4, 5, 32):
            asked(engine, slot_for(engine), rows=3, length=length)


def test_a_batch_is_as_large_as_every_profile_takes(machine: Machine, tmp_path: Path) -> None:
    profiles = [{"text": [[1, 1], [8, 4], [16, 4]]}, {"text": [[2, 5], [2, 16], [4, 32]]}]
    with opening(machine, write_plan(tmp_path / "m.plan", **(TEXT | {"profiles": profiles})), max_batch=32) as engine:
        assert engine.batch_max == 4
        slot = slot_for(engine)
        slot.take_shapes(((32,),))
        slot.inputs[0][:] = 1
        engine.run(slot, 1)  # padded to the 2 rows that its profile takes at least
        assert slot.outputs[1][0].tolist() == [32]


def test_shapes_that_do_not_go_together_fail_their_batch_only(machine: Machine, tmp_path: Path) -> None:
    with opening(machine, write_plan(tmp_path / "m.plan", **TEXT)) as engine:
        slot = slot_for(engine)
        slot.take_shapes(((6,),))
        slot.shapes = ((7,),)
        with pytest.raises(ValueError, match="empty"):
            engine.run(slot, 1)
        slot.shapes = ((6,),)
        for _ in range(3):
            asked(engine, slot, rows=2, length=6)


def test_host_memory_is_laid_out_for_the_largest_rows(engine: TrtEngine) -> None:
    slot = slot_for(engine)
    slot.take_shapes(((6,),))
    assert slot.inputs[0].nbytes == 8 * 6 * np.dtype(np.int64).itemsize
