"""The lookout, by a clock that the tests move, and over real sockets."""

import threading

import pytest

from nomadserve_runtime import lookout
from nomadserve_runtime.lookout import LOOK_OUT_S, Lookout
from tests.unit.runtime.street import Street, on, turns, until

A_WHILE_S = 50e-6


class Day:
    """A lookout with a clock, and what comes.

    Attributes:
        looks: how often it looked.
        comes_at: when something comes that can be seen.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.is_idle = True
        self.looks = 0
        self.comes_at = 0.0
        self.lookout = Lookout(lambda: self.is_idle, clock=lambda: self.now)

    def look(self) -> bool:
        self.looks += 1
        self.now += 1e-6
        return self.now >= self.comes_at

    def reply(self, *, next_after_s: float) -> int:
        """All are answered, and the next request comes so long after it; how often it was looked for."""
        self.looks, self.comes_at = 0, self.now + next_after_s
        self.lookout.look_out(self.look)
        if self.now < self.comes_at:
            self.now = self.comes_at
            self.lookout.note_awakened()
        return self.looks


def test_nobody_is_looked_out_for_before_a_request_came_soon() -> None:
    day = Day()
    assert [day.reply(next_after_s=1.0) for _ in range(3)] == [0, 0, 0]
    assert day.reply(next_after_s=A_WHILE_S) == 0


def test_where_requests_come_soon_they_are_looked_for_until_they_are_there() -> None:
    day = Day()
    day.reply(next_after_s=A_WHILE_S)
    for _ in range(3):
        assert day.reply(next_after_s=A_WHILE_S) == pytest.approx(50, abs=1)


def test_in_vain_it_looks_out_once_and_not_again_until_a_request_came_soon() -> None:
    day = Day()
    day.reply(next_after_s=A_WHILE_S)
    assert day.reply(next_after_s=1.0) * 1e-6 == pytest.approx(LOOK_OUT_S, rel=0.02)
    assert day.reply(next_after_s=1.0) == 0
    assert day.reply(next_after_s=A_WHILE_S) == 0
    assert day.reply(next_after_s=A_WHILE_S) > 0


def test_while_somebody_waits_for_the_engine_nobody_is_looked_out_for() -> None:
    day = Day()
    day.reply(next_after_s=A_WHILE_S)
    day.is_idle = False
    assert day.reply(next_after_s=A_WHILE_S) == 0


@pytest.mark.parametrize("is_idle", [True, False])
def test_where_all_are_answered_and_requests_come_soon_the_loop_does_not_sleep_before(
    is_idle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOK_OUT_S", 10.0)

    async def test(street: Street) -> None:
        street.is_idle = is_idle
        client, ear = street.come()
        client.send(b"first")
        await until(lambda: len(ear.heard) == 1)
        ear.transport.write(b"reply")
        street.sockets.look_out_soon()
        await turns(3)
        client.send(b"soon after it")
        await until(lambda: len(ear.heard) == 2)
        later = threading.Timer(0.05, client.send, [b"later"])
        later.start()
        ear.transport.write(b"reply")
        street.sockets.look_out_soon()
        await turns(3)
        assert len(ear.heard) == (3 if is_idle else 2)
        later.join()

    on(test)
