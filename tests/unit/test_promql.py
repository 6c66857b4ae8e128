"""The queries' parts; what a real Prometheus makes of them is shown in tests/integration/test_scaling.py."""

import re
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


def sleeper(**scaling: Any) -> spec.Service:
    keys = {"min": 0, "max": 7, "idle": spec.Seconds(90)} | scaling
    return spec.Service(name="digits", version="v2", scaling=spec.Scaling(**keys))


def test_the_gateways_count_a_version_whoever_answers_for_it_and_no_other() -> None:
    pattern = re.search('envoy_cluster_name=~"(.+)"', promql.at_gateway(sleeper()))
    assert pattern
    for name in ("digits-v2", "failover-target~0~digits-v2", "failover-target~12~digits-v2"):
        assert re.fullmatch(pattern[1], name)
    for name in ("digits-v1", "failover-target~0~digits-v1", "digits-v22", "my-digits-v2"):
        assert not re.fullmatch(pattern[1], name)


def test_the_last_replica_stays_while_anything_moved_within_idle() -> None:
    asked = promql.awake(sleeper())
    for counted in ("nomadserve_gateway_rq_total", "nomadserve_gateway_cx_none_healthy"):
        assert re.search(rf"sum\(increase\({counted}{{[^}}]+}}\[90s\]\)\)", asked)
    assert re.search(r"sum\(max_over_time\(nomadserve_gateway_rq_active{[^}]+}\[90s\]\)\)", asked)
    assert 'sum(increase(nomadserve_requests_total{service="digits",version="v2"}[90s])) or vector(0)' in asked
    assert 'sum(max_over_time(nomadserve_in_flight{service="digits",version="v2"}[90s])) or vector(0)' in asked


def test_who_was_not_ready_for_idle_is_not_sent_to_sleep() -> None:
    replica = 'service="digits",version="v2"'
    assert f"count(up{{{replica}}} == 1) unless on() count(up{{{replica}}} offset 90s == 1)" in promql.awake(sleeper())


def test_where_no_gateway_tells_there_are_as_many_as_there_are() -> None:
    asked = promql.awake(sleeper())
    assert ') > bool 0 or count(up{service="digits",version="v2"}) or vector(0), 7)' in asked
    assert asked.endswith('unless on() (time() - process_start_time_seconds{job="prometheus"} < 40)')


def test_a_load_that_is_never_0_does_not_keep_the_last_replica() -> None:
    sleeps, stays = sleeper().scaling, service().scaling
    assert sleeps and stays
    assert promql.beyond_the_last("\nsum(x) / 4\n", sleeps) == "(sum(x) / 4) * ((sum(x) / 4) > bool 1)"
    assert promql.beyond_the_last("sum(x) / 4", stays) == "sum(x) / 4"
