import asyncio
import ctypes
import sys
from threading import Thread

import pytest

from nomadserve_runtime.engines.fake import FakeEngine
from nomadserve_runtime.interpreter import PATIENT_S, SWITCH_S, TIMER_SLACK_NS, keeping_lock, take_turns
from nomadserve_runtime.runner import ThreadRunner
from nomadserve_runtime.slots import Slot
from tests.unit.runtime.models import fake_engine, slot_for

PR_GET_TIMERSLACK = 30

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="timer slack is Linux's")


def timer_slack_ns() -> int:
    return ctypes.CDLL(None).prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)


def test_a_thread_that_takes_turns_waits_precisely_and_no_other_one_does() -> None:
    found: list[int] = []

    def work() -> None:
        take_turns()
        found.append(timer_slack_ns())

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert found == [TIMER_SLACK_NS]
    assert timer_slack_ns() > TIMER_SLACK_NS
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)


class Noting(FakeEngine):
    """Notes how its thread waits, and how often threads take turns."""

    def run(self, slot: Slot, rows: int) -> None:
        self.found = (timer_slack_ns(), sys.getswitchinterval())
        super().run(slot, rows)


def test_the_thread_of_an_engine_takes_turns() -> None:
    """What that is worth can't be tested where others use the machine; `docs/architecture.md` has the measurement."""
    engine = fake_engine()
    engine.__class__ = Noting
    sys.setswitchinterval(0.005)

    async def test() -> None:
        answered = asyncio.Event()

        def hand_back(slot: Slot, rows: int, failure: Exception | None) -> None:
            assert failure is None
            answered.set()

        runner = ThreadRunner(engine, hand_back)
        runner.start(slot_for(engine), 1)
        async with asyncio.timeout(20):
            await answered.wait()
        runner.close()

    asyncio.run(test())
    assert isinstance(engine, Noting)
    assert engine.found == (TIMER_SLACK_NS, pytest.approx(SWITCH_S))


def test_threads_ask_seldom_while_the_lock_is_kept_and_as_often_as_before_afterwards_whatever_went_wrong() -> None:
    sys.setswitchinterval(SWITCH_S)
    for _ in range(1000):  # what Python makes of the number must not shrink
        with pytest.raises(ValueError, match="wrong"), keeping_lock():
            assert sys.getswitchinterval() == pytest.approx(PATIENT_S)
            raise ValueError("wrong")
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)


def test_where_no_thread_takes_turns_nothing_changes_while_the_lock_is_kept() -> None:
    sys.setswitchinterval(0.005)
    with keeping_lock():
        assert sys.getswitchinterval() == pytest.approx(0.005)
    assert sys.getswitchinterval() == pytest.approx(0.005)
