"""The queries' parts; what a real Prometheus makes of them is shown in tests/integration/test_scaling.py."""

from typing import Any

import pytest

from nomadserve import promql, spec


def service(**scaling: Any) -> spec.Service:
    return spec.Service(name="digits", version="v2", scaling=spec.Scaling(min=1, max=7, **scaling))


def query(**scaling: Any) -> str:
    return promql.replicas("sum(x) / 4", service(**scaling))


def test_replicas_are_whole_bounded_and_never_nan() -> None:
    asked = query()
    assert "ceil((sum(x) / 4)) >= 0" in asked
    assert asked.startswith("clamp_max(")
    assert ", 7) unless on() (" in asked


def test_the_highest_wish_of_the_cooldown_counts() -> None:
    assert "max_over_time((ceil((sum(x) / 4)) >= 0)[300s:5s])" in query()
    assert "[90s:5s]" in query(cooldown=spec.Seconds(90))


def test_without_a_cooldown_only_now_counts() -> None:
    assert "max_over_time" not in query(cooldown=spec.Seconds(0))


def test_a_replica_that_was_just_added_is_not_taken_away() -> None:
    known = 'count(up{service="digits",version="v2"})'
    assert f"min_over_time({known}[15s:5s]) > min_over_time({known}[300s:5s])" in query()


def test_no_data_asks_for_as_many_as_there_are() -> None:
    assert 'or count(up{service="digits",version="v2"}) or vector(0)' in query()


def test_overprovisioning_comes_before_rounding() -> None:
    assert "ceil((sum(x) / 4) * 1.25)" in query(overprovision=0.25)


def test_a_limit_upwards_counts_from_the_most_replicas_of_late() -> None:
    asked = query(max_scale_up=2)
    assert 'scalar(max_over_time(count(up{service="digits",version="v2"})[300s:5s]) or vector(0)) + 2)' in asked


@pytest.mark.parametrize(("window", "seconds"), [(30, 40), (120, 130)])
def test_a_young_prometheus_is_not_believed(window: int, seconds: int) -> None:
    target = spec.InFlight(value=4, window=spec.Seconds(window))
    asked = query(targets=(target,))
    assert asked.endswith(f'unless on() (time() - process_start_time_seconds{{job="prometheus"}} < {seconds})')


def test_a_comment_in_a_users_query_ends_with_its_line() -> None:
    assert promql.single("sum(x) # ours") == "vector(scalar(\nsum(x) # ours\n))"
