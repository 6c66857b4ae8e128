"""One careful client: sends rows, and compares every reply with what ONNX Runtime says itself."""

import contextlib
import http.client
import json
import threading
from dataclasses import dataclass

import numpy as np

from benchmarks.bodies import Dialect
from benchmarks.models import Model

TOLERANCE = 1e-3
TIMEOUT_S = 60.0
SAMPLE_EVERY_S = 1.0


@dataclass(frozen=True)
class Question:
    """One request, and the numbers that its reply must hold."""

    path: str
    headers: dict[str, str]
    body: bytes
    answer: np.ndarray

    def as_http(self, port: int) -> bytes:
        """The whole request."""
        headers = {"Host": f"127.0.0.1:{port}", **self.headers, "Content-Length": str(len(self.body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {self.path} HTTP/1.1\r\n{head}\r\n".encode() + self.body


def questions(model: Model, path: str, dialect: Dialect) -> list[Question]:
    """One for each row of the model."""
    answers = model.rows.reshape(len(model.rows), -1) if dialect.echoes else model.scores
    bodies = [dialect.encode(row) for row in model.rows]
    return [
        Question(path, dialect.headers_of(body), body, answer) for body, answer in zip(bodies, answers, strict=True)
    ]


class WrongReply(Exception):
    """A reply that is not what the model says."""


class Client:
    """Asks over one connection."""

    def __init__(self, port: int, dialect: Dialect) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self._dialect = dialect

    def ask(self, question: Question) -> None:
        """Send it; raises `WrongReply`, `OSError` or `HTTPException`."""
        self._connection.request("POST", question.path, question.body, question.headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise WrongReply(f"status {response.status}: {body[:300]!r}")
        found = self._dialect.decode(body)
        if found.shape != question.answer.shape or not np.allclose(found, question.answer, atol=TOLERANCE):
            raise WrongReply(f"{found[:10]} in place of {question.answer[:10]}")

    def extensions(self) -> list[str]:
        """What the server announces, by the Open Inference Protocol."""
        self._connection.request("GET", "/v2")
        content = json.loads(self._connection.getresponse().read())
        return list(content["extensions"])

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class Sampling:
    """While entered, checks a reply now and then.

    Attributes:
        checked: replies that were right.
        wrong: what was wrong with all others.
    """

    def __init__(self, port: int, dialect: Dialect, asked: list[Question]) -> None:
        self.checked = 0
        self.wrong: list[str] = []
        self._client = Client(port, dialect)
        self._questions = asked
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Sampling":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def _sample(self) -> None:
        number = 0
        while self._questions and not self._over.wait(SAMPLE_EVERY_S):
            try:
                self._client.ask(self._questions[number % len(self._questions)])
                self.checked += 1
            except (WrongReply, OSError, http.client.HTTPException) as error:
                self.wrong.append(f"{type(error).__name__}: {error}")
                with contextlib.suppress(OSError):
                    self._client.close()
            number += 1
