import json
from collections.abc import Callable

import pytest
import requests

from nomadserve.operations import call as module
from nomadserve.operations.call import Answer, Endpoint, call


def reply(status: int, body: object = None, **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made._content = body if isinstance(body, bytes) else json.dumps(body).encode()
    made.headers.update({name.replace("_", "-"): text for name, text in headers.items()})
    return made


STARTING = {"error": "no replica is ready", "reason": "starting"}
Ask = Callable[..., tuple[Answer, list[float]]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Calls a service that gives these replies, in 30 s of a clock that only waiting moves; answer and waits."""

    def run(*replies: requests.Response) -> tuple[Answer, list[float]]:
        now, left, waits = [0.0], list(replies), []
        monkeypatch.setattr(module, "post", lambda *_, **__: (left.pop(0), Endpoint("127.0.0.1", 8080)))
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
        answer = call("digits", b"{}", version=None, timeout_s=30, on_wait=lambda seconds, _: waits.append(seconds))
        assert not left
        return answer, waits

    return run


def test_a_version_that_is_starting_is_asked_again_when_it_should_be_ready(ask: Ask) -> None:
    answer, waits = ask(reply(503, STARTING, Retry_After="12"), reply(503, STARTING, Retry_After="3"), reply(200, {}))
    assert (answer.status, waits) == (200, [12, 3])


def test_who_will_not_be_ready_in_time_is_not_waited_for(ask: Ask) -> None:
    answer, waits = ask(reply(503, STARTING, Retry_After="40"))
    assert (answer.status, waits) == (503, [])


@pytest.mark.parametrize(
    "busy",
    [
        reply(503, {"error": "the queue is full", "reason": "queue_full"}, Retry_After="1"),
        reply(503, STARTING),
        reply(503, b"no healthy upstream", Retry_After="1"),
        reply(503, [], Retry_After="1"),
        reply(503, STARTING, Retry_After="soon"),
    ],
    ids=["full queue", "no time", "not ours", "no object", "no number"],
)
def test_any_other_refusal_is_the_answer(ask: Ask, busy: requests.Response) -> None:
    answer, waits = ask(busy)
    assert (answer.status, waits) == (503, [])
