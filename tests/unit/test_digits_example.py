"""The digits example: the shipped models are what its README promises, and its client counts honestly."""

import http.client
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import dns.resolver
import numpy as np
import onnxruntime
import pytest

from examples.digits import send as client

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits"
VERSIONS = ("v1", "v2")


@pytest.fixture(scope="module")
def test_set() -> tuple[np.ndarray, np.ndarray]:
    content = json.loads((EXAMPLE / "test-images.json").read_text())
    return np.array(content["images"], np.float32), np.array(content["labels"])


def session(version: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        EXAMPLE / "models" / f"digits-{version}.onnx", providers=["CPUExecutionProvider"]
    )


def count_right(version: str, images: np.ndarray, labels: np.ndarray) -> int:
    (scores,) = session(version).run(["scores"], {"image": images})
    return int((scores.argmax(axis=1) == labels).sum())


@pytest.mark.parametrize("version", VERSIONS)
def test_model_takes_raw_pixels_and_gives_ten_scores(version: str) -> None:
    (image,), (scores,) = session(version).get_inputs(), session(version).get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(float)", ["batch", 64])
    assert (scores.name, scores.type, scores.shape) == ("scores", "tensor(float)", ["batch", 10])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("rows", [1, 3, 32])
def test_scores_are_probabilities_at_any_batch_size(
    version: str, rows: int, test_set: tuple[np.ndarray, np.ndarray]
) -> None:
    images, _ = test_set
    (scores,) = session(version).run(["scores"], {"image": images[:rows]})
    assert scores.shape == (rows, 10)
    assert scores.min() >= 0
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_test_images_are_899_images_of_64_pixels_from_0_to_16(test_set: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = test_set
    assert images.shape == (899, 64)
    assert (images.min(), images.max()) == (0, 16)
    assert sorted(set(labels.tolist())) == list(range(10))


@pytest.mark.parametrize("version", VERSIONS)
def test_accuracy_is_what_the_readme_says(version: str, test_set: tuple[np.ndarray, np.ndarray]) -> None:
    row = re.search(
        rf"digits-{version}\.onnx.*\*\*(\d+) of (\d+) right \(([\d.]+) %\)", (EXAMPLE / "README.md").read_text()
    )
    assert row is not None
    right = count_right(version, *test_set)
    assert (right, len(test_set[1])) == (int(row[1]), int(row[2]))
    assert f"{right / len(test_set[1]):.1%}" == f"{row[3]}%"


def test_v2_is_better_than_v1(test_set: tuple[np.ndarray, np.ndarray]) -> None:
    assert count_right("v2", *test_set) >= count_right("v1", *test_set) + 10


@pytest.mark.parametrize("version", VERSIONS)
def test_service_file_names_a_model_that_is_there(version: str) -> None:
    text = (EXAMPLE / "service.hcl.j2").read_text().replace("{{ version | default('v1') }}", version)
    source = re.search(r'source\s*=\s*"([^"]+)"', text)
    assert source is not None
    assert (EXAMPLE / source[1]).is_file()


class FakeConnection:
    """Answers like a service whose every tenth request goes to v2, and which follows `script` first."""

    script: ClassVar[list[Any]] = []
    seen: ClassVar[list[dict[str, str]]] = []
    digit: ClassVar[int] = 0
    numbers: ClassVar[Iterator[int]]  # of the requests, whichever of several threads sends them

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self.status, self.content = 0, b""
        self.number = 0

    def request(self, method: str, path: str, body: str, headers: dict[str, str]) -> None:
        assert (method, path) == ("POST", "/v1/inference")
        assert np.shape(json.loads(body)["inputs"]["image"]) == (1, 64)
        self.seen.append(headers)
        self.number = next(self.numbers)

    def getresponse(self) -> "FakeConnection":
        answer = self.script.pop(0) if self.script else None
        if isinstance(answer, Exception):
            raise answer
        self.status, self.content = answer or (200, self.reply())
        return self

    def reply(self) -> bytes:
        version = "v2" if self.number % 10 == 0 else "v1"
        scores = [float(digit == self.digit) for digit in range(10)]
        return json.dumps({"version": version, "outputs": {"scores": [scores]}}).encode()

    def read(self) -> bytes:
        return self.content

    def close(self) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeConnection]:
    FakeConnection.script, FakeConnection.seen, FakeConnection.numbers = [], [], itertools.count(1)
    monkeypatch.setattr(http.client, "HTTPConnection", FakeConnection)
    monkeypatch.setattr(client, "resolve", lambda name, dns_address: [("127.0.0.1", 8080)])
    return FakeConnection


def test_client_counts_shares_per_version_and_names_the_service(fake: type[FakeConnection]) -> None:
    counts = client.send("digits", requests=200, connections=1)
    assert (counts.requests, counts.failed) == (200, {})
    assert (counts.share("v1"), counts.share("v2")) == (0.9, 0.1)
    assert {headers["Host"] for headers in fake.seen} == {"digits.service.consul"}


def test_client_sends_exactly_as_many_as_asked_over_several_connections(fake: type[FakeConnection]) -> None:
    assert client.send(requests=101, connections=8).requests == 101
    assert len(fake.seen) == 101


def test_client_counts_an_answer_as_right_only_where_it_names_the_label(
    fake: type[FakeConnection], test_set: tuple[np.ndarray, np.ndarray]
) -> None:
    counts = client.send(requests=899, connections=1)
    assert counts.right.total() == int((test_set[1] == fake.digit).sum())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((503, b'{"reason":"queue_full"}'), 'status 503: {"reason":"queue_full"}'),
        ((200, b"not json"), "Expecting value: line 1 column 1 (char 0)"),
        ((200, b'{"version":"v1"}'), "'outputs'"),
        (ConnectionRefusedError("connection refused"), "connection refused"),
        (http.client.RemoteDisconnected("closed"), "closed"),
    ],
)
def test_client_counts_a_bad_answer_as_failed_and_goes_on(
    fake: type[FakeConnection], answer: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.script = [answer]
    assert client.main(["--requests", "5", "--connections", "1"]) == 1
    out = capsys.readouterr().out
    assert "5 requests" in out and "1 failed" in out
    assert f"failed: 1 x {reason}" in out


def test_client_exits_0_and_prints_json_when_all_is_answered(
    fake: type[FakeConnection], capsys: pytest.CaptureFixture[str]
) -> None:
    assert client.main(["--requests", "20", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["requests"], printed["failed"]) == (20, 0)
    assert {version: row["requests"] for version, row in printed["versions"].items()} == {"v1": 18, "v2": 2}


def test_client_stops_at_its_time_even_when_no_count_is_given(fake: type[FakeConnection]) -> None:
    assert client.send(requests=None, seconds=0.0).requests == 0


def test_client_says_what_to_do_when_the_name_does_not_resolve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def resolve(name: str, dns_address: str) -> list[tuple[str, int]]:
        raise dns.resolver.NoNameservers

    monkeypatch.setattr(client, "resolve", resolve)
    assert client.main(["--requests", "1"]) == 1
    err = capsys.readouterr().err
    assert "error: no address for `digits.service.consul`" in err
    assert "hint: is it deployed" in err
