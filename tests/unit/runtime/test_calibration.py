import asyncio

import pytest

from nomadserve_runtime import calibration
from nomadserve_runtime.calibration import UNCALIBRATED, BatchTime, Calibration, buckets, calibrate
from nomadserve_runtime.engines.fake import FakeEngine
from nomadserve_runtime.slots import Slot
from tests.unit.runtime.models import fake_engine


@pytest.mark.parametrize(
    ("batch_max", "wanted"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (32, [1, 2, 4, 8, 16, 32])]
)
def test_every_power_of_two_and_the_largest_batch_are_timed(batch_max: int, wanted: list[int]) -> None:
    assert buckets(batch_max) == wanted


def test_a_batch_between_two_sizes_that_were_timed_takes_its_share_of_the_difference() -> None:
    found = Calibration((BatchTime(2, 0.25), BatchTime(4, 0.5), BatchTime(8, 2.5)))
    assert [found.batch_s(rows) for rows in (1, 2, 3, 4, 5, 8, 9)] == [0.25, 0.25, 0.375, 0.5, 1.0, 2.5, 2.5]
    assert UNCALIBRATED.batch_s(1) == 0.0


def test_what_a_batch_is_filled_up_to_follows_from_the_table() -> None:
    assert Calibration((BatchTime(1, 0.1), BatchTime(2, 0.2), BatchTime(4, 0.4))).worthwhile_rows(4) == 1
    assert Calibration((BatchTime(1, 0.1), BatchTime(2, 0.1), BatchTime(4, 0.1))).worthwhile_rows(4) == 4
    assert UNCALIBRATED.worthwhile_rows(4) == 4


@pytest.mark.parametrize(
    "batch_ms",
    [(5.89, 11.83, 23.87, 48.31, 98.01, 193.7), (6.13, 11.98, 24.66, 50.30, 100.2, 201.2)],
)
def test_two_starts_of_one_model_on_one_machine_fill_batches_alike(batch_ms: tuple[float, ...]) -> None:
    """Both were measured. The first start made batches of one row, which cost up to 12 % of the rows a second."""
    table = tuple(BatchTime(2**power, ms / 1e3) for power, ms in enumerate(batch_ms))
    assert Calibration(table, hop_s=0.00014).worthwhile_rows(32) == 2


def test_an_engine_that_knows_its_times_is_not_run() -> None:
    found = asyncio.run(calibrate(fake_engine(delay_ms=3_600_000, delay_ms_per_row=1000)))
    assert [(line.rows, line.seconds) for line in found.table] == [(1, 3601.0), (2, 3602.0), (4, 3604.0)]
    assert not found.is_inline


class Runs(FakeEngine):
    """Notes the batches that it is given, and does not know how long they take."""

    def known_seconds(self, rows: int) -> float | None:  # type: ignore[override]
        return None

    def run(self, slot: Slot, rows: int) -> None:
        self.batches = [*getattr(self, "batches", []), rows]
        super().run(slot, rows)


def test_an_engine_is_run_at_every_size_before_it_serves() -> None:
    engine = fake_engine(batch_max=4)
    engine.__class__ = Runs
    found = asyncio.run(calibrate(engine))
    assert isinstance(engine, Runs)
    assert set(engine.batches) == {1, 2, 4}
    assert min(engine.batches.count(rows) for rows in (1, 2, 4)) >= 2
    assert all(line.seconds > 0 for line in found.table)
    assert found.hop_s > 0


def test_a_thread_that_is_hardly_ever_reached_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        """Every look at it takes a hundredth of a second: fifty hops would take seconds."""

        now = 0.0

        def perf_counter(self) -> float:
            self.now += 0.01
            return self.now

    clock = Clock()
    monkeypatch.setattr(calibration, "time", clock)
    asyncio.run(calibration.measure_hop())
    assert clock.now < 10 * calibration.HOPS_S_MAX


def test_an_engine_faster_than_any_thread_runs_on_the_event_loop() -> None:
    assert asyncio.run(calibrate(fake_engine())).is_inline
