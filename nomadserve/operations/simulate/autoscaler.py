"""The Nomad Autoscaler's own part: from what its checks answer to a new count, with its rests. Pure.

It mirrors nomad-autoscaler 0.5.0 step by step:

    plugins/builtin/strategy/pass-through   a check's answer, cut to a whole number, is the wish; its direction is
                                            found against the RUNNING replicas; `max_scale_down` counts from them too
    policy/check.go, CapCount               each wish is brought between `min` and `max`
    sdk.PreemptScalingAction                up beats none beats down; of two in one direction the larger wins
    policy/handler.go, scalingNeeded        nothing is done where the wish is what runs
    policy/handler.go, Run                  evaluated at every tick; within the rest after a change nothing is done
    plugins/builtin/target/nomad, Scale     during a deployment nothing is done, and no rest begins
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Direction(IntEnum):
    """In the order in which one beats another."""

    down = 0
    none = 1
    up = 2


@dataclass(frozen=True, slots=True)
class Action:
    """What one check wants.

    Attributes:
        why: the check's name.
    """

    direction: Direction
    count: int
    why: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """The policy's `min` and `max`, and how many replicas one evaluation may take away."""

    min: int
    max: int
    down_max: int | None = None


def action_of(value: float, running: int, bounds: Bounds, *, why: str, is_limited: bool = True) -> Action:
    """The wish of one check. `is_limited`: `max_scale_down` holds for it; for a schedule's fixed value it does not."""
    direction = Direction.up if value > running else Direction.down if value < running else Direction.none
    if direction is Direction.none:
        return Action(direction, running, why)
    count = int(value)
    if direction is Direction.down and is_limited and bounds.down_max is not None:
        count = max(count, running - bounds.down_max)
    return Action(direction, min(max(count, bounds.min), bounds.max), why)


def winner_of(actions: Sequence[Action]) -> Action | None:
    """The safest wish; None without any."""
    return max(actions, key=lambda action: (action.direction, action.count), default=None)


class Autoscaler:
    """Its memory: until when it rests.

    rest_s: after a change, in seconds.  rest_after_down_s: after one downwards, where that differs.
    """

    def __init__(self, bounds: Bounds, *, rest_s: float, rest_after_down_s: float | None = None) -> None:
        self.bounds = bounds
        self._rest_s = rest_s
        self._rest_after_down_s = rest_s if rest_after_down_s is None else rest_after_down_s
        self._rests_until = float("-inf")

    def decide(self, now: float, running: int, actions: Sequence[Action], *, is_deploying: bool) -> Action | None:
        """One evaluation: the change to make, or None.

        running: replicas that Nomad counts as running.  is_deploying: an earlier change is not yet healthy.
        """
        action = winner_of(actions)
        if action is None or action.direction is Direction.none or action.count == running:
            return None
        if now <= self._rests_until or is_deploying:
            return None
        is_down = action.direction is Direction.down
        self._rests_until = now + (self._rest_after_down_s if is_down else self._rest_s)
        return action
