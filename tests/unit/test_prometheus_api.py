import math
from collections.abc import Callable
from typing import Any

import pytest
import requests

from nomadserve.prometheus_api import BadQuery, PrometheusApi, PrometheusUnreachable

Answers = Callable[[int, Any], PrometheusApi]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """A Prometheus that answers everything so."""

    def prepare(status: int, content: Any) -> PrometheusApi:
        reply = requests.Response()
        reply.status_code = status
        monkeypatch.setattr(reply, "json", lambda: content)
        monkeypatch.setattr(requests.Session, "post", lambda *_, **__: reply)
        return PrometheusApi("http://127.0.0.1:9090/")

    return prepare


def success(kind: str, result: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result}}


def test_a_vector_gives_one_number_for_each_series(answers: Answers) -> None:
    series = [{"metric": {}, "value": [1, "3"]}, {"metric": {}, "value": [1, "0.5"]}]
    assert answers(200, success("vector", series)).values("x") == [3, 0.5]


def test_nothing_is_an_empty_list(answers: Answers) -> None:
    assert answers(200, success("vector", [])).values("x") == []


def test_numbers_that_are_none_come_as_such(answers: Answers) -> None:
    [nan, infinity] = answers(200, success("vector", [{"value": [1, "NaN"]}, {"value": [1, "+Inf"]}])).values("x")
    assert math.isnan(nan)
    assert math.isinf(infinity)


def test_a_scalar_is_a_number_too(answers: Answers) -> None:
    assert answers(200, success("scalar", [1, "3"])).values("3") == [3]


def test_a_range_of_moments_is_refused(answers: Answers) -> None:
    with pytest.raises(BadQuery, match="it gives a matrix, not a number of this moment"):
        answers(200, success("matrix", [])).values("x[5m]")


def test_a_query_that_cannot_be_read_is_told_in_prometheus_own_words(answers: Answers) -> None:
    with pytest.raises(BadQuery, match="parse error"):
        answers(400, {"status": "error", "error": "1:7: parse error"}).values("sum(x")


def test_a_prometheus_that_can_not_answer_is_no_bad_query(answers: Answers) -> None:
    with pytest.raises(PrometheusUnreachable, match="answered 503"):
        answers(503, {"status": "error"}).values("x")


def test_nobody_there_is_said_with_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise requests.ConnectionError

    monkeypatch.setattr(requests.Session, "post", refuse)
    with pytest.raises(PrometheusUnreachable, match=r"no Prometheus answers at http://127\.0\.0\.1:9090: Conn"):
        PrometheusApi("http://127.0.0.1:9090/").values("x")
