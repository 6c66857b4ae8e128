import pytest

from nomadserve_runtime.metrics import GATHERED_MAX, OUTCOMES, REFUSALS, ModelMetrics, Series, Stages


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.registry.get_sample_value(f"nomadserve_{name}", {"model": "digits", **labels})


@pytest.fixture
def series() -> Series:
    return Series()


@pytest.fixture
def metrics(series: Series) -> ModelMetrics:
    return series.model("digits")


def test_every_series_of_the_contract_is_there_from_the_start(series: Series, metrics: ModelMetrics) -> None:
    for word in OUTCOMES:
        assert value(series, "requests_total", outcome=word) == 0
    for word in REFUSALS:
        assert value(series, "refused_total", reason=word) == 0
    for name in ("in_flight", "queued_rows", "backlog_seconds", "rows_total"):
        assert value(series, name) == 0
    for name in (
        "batch_rows",
        "request_seconds",
        "receive_seconds",
        "queue_seconds",
        "engine_seconds",
        "reply_seconds",
    ):
        assert value(series, f"{name}_count") == 0


def test_gauges_are_read_when_scraped(series: Series, metrics: ModelMetrics) -> None:
    state = {"rows": 3.0}
    metrics.watch(in_flight=lambda: 1, queued_rows=lambda: state["rows"], backlog_seconds=lambda: 0.5)
    assert (value(series, "in_flight"), value(series, "queued_rows"), value(series, "backlog_seconds")) == (1, 3, 0.5)
    state["rows"] = 0
    assert value(series, "queued_rows") == 0


def test_the_text_has_no_created_series(series: Series, metrics: ModelMetrics) -> None:
    metrics.outcome["ok"].inc()
    text = series.render().decode()
    assert 'nomadserve_requests_total{model="digits",outcome="ok"} 1.0' in text
    assert "_created" not in text


def test_two_processes_worth_of_series_do_not_meet(series: Series, metrics: ModelMetrics) -> None:
    metrics.rows.inc(5)
    other = Series()
    other.model("digits")
    assert (value(series, "rows_total"), value(other, "rows_total")) == (5, 0)


def test_each_stage_of_a_request_is_counted_where_it_belongs(series: Series, metrics: ModelMetrics) -> None:
    metrics.stages.add((10.0, 10.002, 10.1, 10.3, 10.30005))
    metrics.stages.add((20.0, 20.04, 20.1, 20.3, 20.303))
    for name, bound, count in (("receive", "0.0025", 1), ("receive", "0.05", 2), ("reply", "0.0005", 1)):
        assert value(series, f"{name}_seconds_bucket", le=bound) == count
    assert value(series, "receive_seconds_sum") == pytest.approx(0.042)
    assert value(series, "stage_seconds_total", stage="receive") == pytest.approx(0.042)
    assert value(series, "reply_seconds_count") == value(series, "request_seconds_count") == 2
    assert value(series, "request_seconds_sum") == pytest.approx(0.60305)
    spent = [value(series, "stage_seconds_total", stage=stage) for stage in Stages.WORDS]
    assert sum(filter(None, spent)) == pytest.approx(0.60305)


def test_what_was_observed_is_counted_in_small_pieces_while_requests_wait(metrics: ModelMetrics) -> None:
    for number in range(10 * GATHERED_MAX):
        moment = float(number)
        metrics.stages.add((moment, moment, moment, moment, moment))
        metrics.queue_seconds.observe(0.0)
        metrics.sweep()
        assert metrics.stages.gathered < GATHERED_MAX
        assert metrics.queue_seconds.gathered < GATHERED_MAX
    assert (metrics.request_seconds.count, metrics.queue_seconds.count) == (10 * GATHERED_MAX, 10 * GATHERED_MAX)
