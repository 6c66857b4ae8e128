"""The engine on a made-up GPU, whose streams run as late and as little as CUDA allows."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nomadserve_runtime.engines.trt.engine import TrtEngine
from nomadserve_runtime.errors import EngineLost
from nomadserve_runtime.slots import Slot
from nomadserve_runtime.tensors import TensorSpec
from tests.unit.runtime.models import slot_for
from tests.unit.runtime.trt.fake_cuda import Machine
from tests.unit.runtime.trt.fake_tensorrt_runtime import CRASHES, write_plan
from tests.unit.runtime.trt.gpu import opened, opening, plug_in


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    plug_in(monkeypatch, machine)
    return machine


@pytest.fixture
def engine(machine: Machine, tmp_path: Path) -> Iterator[TrtEngine]:
    with opening(machine, write_plan(tmp_path / "m.plan")) as engine:
        yield engine


class Ended:
    """A batch that was started, to wait for."""

    def __init__(self, engine: TrtEngine, slot: Slot, rows: int) -> None:
        self.failure: Exception | None = None
        self._is_done = threading.Event()
        engine.start(slot, rows, self._end)

    def _end(self, failure: Exception | None) -> None:
        self.failure = failure
        self._is_done.set()

    def wait(self) -> Exception | None:
        assert self._is_done.wait(20)
        return self.failure


def sums(slot: Slot, rows: int) -> list[float]:
    return list(slot.outputs[0][:rows, 0].tolist())


def test_two_batches_under_way_do_not_meet(engine: TrtEngine) -> None:
    first, second = slot_for(engine), slot_for(engine)
    first.inputs[0][:], second.inputs[0][:] = 1, 10
    batches = [Ended(engine, first, 8), Ended(engine, second, 3)]
    assert [batch.wait() for batch in batches] == [None, None]
    assert (sums(first, 8), sums(second, 3)) == ([4] * 8, [40] * 3)


def test_many_batches_one_after_the_other_keep_their_rows(engine: TrtEngine) -> None:
    slots = [slot_for(engine) for _ in range(2)]
    for turn in range(20):
        batches = []
        for place, slot in enumerate(slots):
            slot.inputs[0][:] = turn * 2 + place
            batches.append(Ended(engine, slot, 1 + turn % 8))
        assert [batch.wait() for batch in batches] == [None, None]
        assert [slot.outputs[0][0, 0] for slot in slots] == [4 * turn * 2, 4 * (turn * 2 + 1)]


def test_times_are_noted_in_the_slot(engine: TrtEngine) -> None:
    first, second = slot_for(engine), slot_for(engine)
    batches = [Ended(engine, first, 8), Ended(engine, second, 8)]
    assert [batch.wait() for batch in batches] == [None, None]
    assert 0 < first.started_at <= first.ended_at <= second.started_at <= second.ended_at


def test_cuda_is_called_in_the_threads_of_the_engine_only(machine: Machine, engine: TrtEngine) -> None:
    engine.run(slot_for(engine), 8)
    assert machine.threads == {"gpu-0", "gpu-0-done"}


def test_slots_lie_in_page_locked_memory(machine: Machine, engine: TrtEngine) -> None:
    before = machine.pinned
    slot_for(engine)
    assert machine.pinned == before + 2


def test_batches_are_launched_as_graphs(machine: Machine, engine: TrtEngine) -> None:
    before = machine.launches
    engine.run(slot_for(engine), 8)
    assert machine.launches == before + 1
    assert engine.graph_failures == 0


def test_where_no_graph_can_be_recorded_batches_run_without(machine: Machine, tmp_path: Path) -> None:
    machine.capture_fails = True
    with opening(machine, write_plan(tmp_path / "m.plan")) as engine:
        slot = slot_for(engine)
        slot.inputs[0][:] = 2
        engine.run(slot, 5)
        assert sums(slot, 5) == [8] * 5
        assert engine.graph_failures == 4  # batches of 1, 2, 4 and 8 rows
        assert machine.launches == 0


def test_graphs_can_be_switched_off(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMADSERVE_CUDA_GRAPHS", "0")
    with opening(machine, write_plan(tmp_path / "m.plan")) as engine:
        engine.run(slot_for(engine), 8)
        assert (machine.launches, engine.graph_failures) == (0, 0)


def test_a_batch_is_padded_to_a_prepared_size_that_is_done_soonest(engine: TrtEngine) -> None:
    prepared = {engine.run_rows(rows) for rows in range(1, 9)}
    assert prepared <= {1, 2, 4, 8}
    for rows in range(1, 9):
        assert engine.run_rows(rows) >= rows
        assert engine.known_seconds(rows) == engine.known_seconds(engine.run_rows(rows)) > 0


def test_padding_is_never_garbage(machine: Machine, tmp_path: Path) -> None:
    """What is in fresh memory would be an index out of range for some models, which crashes the GPU."""
    profiles = [{"x": [[8, 4], [8, 4], [8, 4]]}]
    with opening(machine, write_plan(tmp_path / "m.plan", profiles=profiles)) as engine:
        engine.run(slot_for(engine), 1)
        assert machine.problems == []


def test_a_fixed_batch_takes_the_place_of_the_configured_one(machine: Machine, tmp_path: Path) -> None:
    plan = write_plan(
        tmp_path / "m.plan",
        inputs=[{"name": "x", "shape": [4, 3]}],
        outputs=[{"name": "y", "shape": [4, 1]}],
        profiles=[],
    )
    with opening(machine, plan, max_batch=32) as engine:
        assert (engine.batch_max, engine.run_rows(1)) == (4, 4)
        slot = slot_for(engine)
        slot.inputs[0][:] = 5
        engine.run(slot, 3)
        assert sums(slot, 3) == [15] * 3


def test_every_batch_runs_in_a_profile_that_covers_it(machine: Machine, tmp_path: Path) -> None:
    profiles = [{"x": [[1, 4], [1, 4], [1, 4]]}, {"x": [[5, 4], [6, 4], [16, 4]]}]
    with opening(machine, write_plan(tmp_path / "m.plan", profiles=profiles), max_batch=16) as engine:
        assert engine.batch_max == 16
        assert {engine.run_rows(rows) for rows in range(2, 6)} <= {5, 6, 8, 16}
        slot = slot_for(engine)
        slot.inputs[0][:] = 1
        for rows in range(1, 17):
            engine.run(slot, rows)
            assert sums(slot, rows) == [4] * rows


def test_several_inputs_and_outputs_of_several_types_pass_by_name(machine: Machine, tmp_path: Path) -> None:
    plan = write_plan(
        tmp_path / "m.plan",
        inputs=[
            {"name": "ids", "shape": [-1, 2], "dtype": "INT64"},
            {"name": "mask", "shape": [-1, 2], "dtype": "BOOL"},
            {"name": "half", "shape": [-1], "dtype": "HALF"},
            {"name": "small", "shape": [-1, 1, 1], "dtype": "INT8"},
            {"name": "brain", "shape": [-1, 2], "dtype": "BF16"},
        ],
        outputs=[{"name": "a", "shape": [-1, 2]}, {"name": "b", "shape": [-1], "dtype": "INT32"}],
        profiles=[
            {
                "ids": [[1, 2], [2, 2], [4, 2]],
                "mask": [[1, 2], [2, 2], [4, 2]],
                "half": [[1], [2], [4]],
                "small": [[1, 1, 1], [2, 1, 1], [4, 1, 1]],
                "brain": [[1, 2], [2, 2], [4, 2]],
            }
        ],
    )
    with opening(machine, plan) as engine:
        assert [str(spec) for spec in (*engine.inputs, *engine.outputs)] == [
            "ids INT64 [batch, 2]",
            "mask BOOL [batch, 2]",
            "half FP16 [batch]",
            "small INT8 [batch, 1, 1]",
            "brain BF16 [batch, 2]",
            "a FP32 [batch, 2]",
            "b INT32 [batch]",
        ]
        slot = slot_for(engine)
        for array, value in zip(slot.inputs, (100, True, 0.5, -3, 0.25), strict=True):
            array[...] = value
        engine.run(slot, 3)
        assert slot.outputs[0][:3].tolist() == [[200.0, 201.0]] * 3
        assert slot.outputs[1][:3].tolist() == [200] * 3


def test_a_dimension_that_all_profiles_fix_is_fixed(machine: Machine, tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "m.plan", inputs=[{"name": "x", "shape": [-1, -1]}])
    with opening(machine, plan) as engine:
        assert engine.inputs == (TensorSpec("x", "FP32", (4,)),)


def test_a_failed_batch_fails_alone(machine: Machine, tmp_path: Path) -> None:
    with opening(machine, write_plan(tmp_path / "m.plan")) as engine:
        broken, whole = slot_for(engine), slot_for(engine)
        whole.inputs[0][:] = 1
        good = engine._workers[0].pipeline._launcher._executions
        engine._workers[0].pipeline._launcher._executions = {}
        failed = Ended(engine, broken, 8)
        assert isinstance(failed.wait(), KeyError)
        failed.failure = None  # its traceback holds on to the streams
        engine._workers[0].pipeline._launcher._executions = good
        assert [Ended(engine, whole, 8).wait() for _ in range(3)] == [None] * 3
        assert sums(whole, 8) == [4] * 8


def test_a_batch_that_tensorrt_refuses_fails_with_its_words(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMADSERVE_CUDA_GRAPHS", "0")
    with opening(machine, write_plan(tmp_path / "m.plan")) as engine:
        plan = engine._workers[0].pipeline.engine.plan  # type: ignore[attr-defined]
        plan["is_never_run"] = True
        refused = Ended(engine, slot_for(engine), 8)
        assert (
            str(refused.wait()) == "TensorRT refuses `execute_async_v3`: Error Code 1: Cuda Runtime (invalid argument)"
        )
        refused.failure = None
        plan["is_never_run"] = False
        assert [Ended(engine, slot_for(engine), 8).wait() for _ in range(3)] == [None] * 3


def two_gpus(monkeypatch: pytest.MonkeyPatch, path: Path, **options: Any) -> Any:
    machine = Machine(gpus=2)
    plug_in(monkeypatch, machine)
    return opening(machine, write_plan(path), **options)


def test_every_gpu_gets_an_instance_and_the_least_loaded_one_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two_gpus(monkeypatch, tmp_path / "m.plan") as engine:
        assert engine.parallel == 2
        started: list[int] = []
        for place, worker in enumerate(engine._workers):
            monkeypatch.setattr(worker, "_enqueue", lambda *_, place=place: started.append(place))
        for _ in range(4):
            engine.start(slot_for(engine), 1, lambda failure: None)
        assert [worker.under_way for worker in engine._workers] == [2, 2]
        for worker in engine._workers:
            worker.call(lambda pipeline: None)
        assert sorted(started) == [0, 0, 1, 1]


def test_instances_on_one_gpu_share_its_weights(machine: Machine, tmp_path: Path) -> None:
    with opening(machine, write_plan(tmp_path / "m.plan"), instances=3) as engine:
        assert engine.parallel == 3
        assert len({id(worker.pipeline.engine) for worker in engine._workers}) == 1
        slot = slot_for(engine)
        slot.inputs[0][:] = 1
        batches = [Ended(engine, slot_for(engine), 8) for _ in range(6)]
        assert [batch.wait() for batch in batches] == [None] * 6


def test_several_gpus_answer_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with two_gpus(monkeypatch, tmp_path / "m.plan", instances=2) as engine:
        slots = [slot_for(engine) for _ in range(8)]
        for value, slot in enumerate(slots):
            slot.inputs[0][:] = value
        batches = [Ended(engine, slot, 8) for slot in slots]
        assert [batch.wait() for batch in batches] == [None] * 8
        assert [slot.outputs[0][7, 0] for slot in slots] == [4 * value for value in range(8)]


def test_a_crashed_gpu_fails_every_batch_from_then_on(machine: Machine, tmp_path: Path) -> None:
    engine = opened(write_plan(tmp_path / "m.plan"))
    crash, other = slot_for(engine), slot_for(engine)
    crash.inputs[0][:] = CRASHES
    batches = [Ended(engine, crash, 1), Ended(engine, other, 1), Ended(engine, other, 1)]
    failures = [batch.wait() for batch in batches]
    assert {type(failure) for failure in failures} == {EngineLost}
    assert all("an illegal memory access was encountered" in str(failure) for failure in failures)
    engine.close()
