"""The mirrored rules of nomad-autoscaler 0.5.0, one test for each."""

import pytest

from nomadserve.operations.simulate.autoscaler import Action, Autoscaler, Bounds, Direction, action_of, winner_of

BOUNDS = Bounds(1, 10)


def wish(value: float, running: int, bounds: Bounds = BOUNDS, *, is_limited: bool = True) -> tuple[Direction, int]:
    action = action_of(value, running, bounds, why="load", is_limited=is_limited)
    return action.direction, action.count


def up(count: int) -> Action:
    return Action(Direction.up, count, "up")


@pytest.mark.parametrize(
    ("value", "running", "expected"),
    [
        (4, 2, (Direction.up, 4)),
        (2, 4, (Direction.down, 2)),
        (3, 3, (Direction.none, 3)),
        (99, 2, (Direction.up, 10)),
        (0, 4, (Direction.down, 1)),
        (2.9, 2, (Direction.up, 2)),  # cut off, not rounded
    ],
)
def test_a_wish_is_cut_to_a_whole_number_between_the_bounds(
    value: float, running: int, expected: tuple[Direction, int]
) -> None:
    assert wish(value, running) == expected


def test_one_evaluation_takes_no_more_away_than_allowed() -> None:
    careful = Bounds(1, 10, down_max=2)
    assert wish(1, 8, careful) == (Direction.down, 6)
    assert wish(9, 1, careful) == (Direction.up, 9)
    assert wish(1, 8, careful, is_limited=False) == (Direction.down, 1)


def test_up_beats_none_and_none_beats_down() -> None:
    none, down = Action(Direction.none, 3, "b"), Action(Direction.down, 2, "c")
    assert winner_of([none, up(4), down]) == up(4)
    assert winner_of([down, none]) == none


def test_of_two_in_one_direction_the_larger_wins() -> None:
    assert winner_of([up(4), up(6)]) == up(6)
    assert winner_of([Action(Direction.down, 1, "a"), Action(Direction.down, 2, "b")]) == Action(Direction.down, 2, "b")
    assert winner_of([]) is None


def test_after_a_change_it_rests() -> None:
    autoscaler = Autoscaler(BOUNDS, rest_s=10)
    assert autoscaler.decide(5, 1, [up(2)], is_deploying=False) == up(2)
    assert autoscaler.decide(10, 2, [up(3)], is_deploying=False) is None
    assert autoscaler.decide(15, 2, [up(3)], is_deploying=False) is None  # it must be past the time
    assert autoscaler.decide(20, 2, [up(3)], is_deploying=False) == up(3)


def test_during_a_deployment_nothing_is_done_and_no_rest_begins() -> None:
    autoscaler = Autoscaler(BOUNDS, rest_s=60)
    assert autoscaler.decide(5, 1, [up(2)], is_deploying=True) is None
    assert autoscaler.decide(6, 1, [up(2)], is_deploying=False) == up(2)


def test_nothing_is_done_where_the_wish_is_what_runs() -> None:
    autoscaler = Autoscaler(BOUNDS, rest_s=60)
    assert autoscaler.decide(5, 10, [action_of(99, 10, BOUNDS, why="load")], is_deploying=False) is None
    assert autoscaler.decide(6, 10, [], is_deploying=False) is None
