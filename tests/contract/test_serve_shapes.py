"""`nomadserve serve` on a model whose rows differ in their length, as its clients see it."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton

from tests.contract.serve_process import PLAIN, Server, serving
from tests.unit.runtime.shapes import write_text_model

PROFILE = {"text": {"min": [1, 1], "opt": [4, 16], "max": [8, 64]}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("shapes")
    model = {"name": "text", "path": str(write_text_model(folder / "text.onnx")), "profiles": [PROFILE]}
    with serving(folder, NOMADSERVE_MODELS=json.dumps([model])) as running:
        yield running


def test_requests_of_many_lengths_at_once_get_their_own_answers(server: Server) -> None:
    def ask(number: int) -> bool:
        row = [number % 7] * (1 + number % 9)
        answer = server.ask("POST", PLAIN, {"inputs": {"text": [row]}}).content["outputs"]
        return bool(answer == {"sums": [[sum(row) + n for n in range(len(row))]], "sum": [[sum(row)]]})

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(300)))


@pytest.mark.parametrize("binary", [False, True])
def test_tritonclient_sends_and_gets_any_length(server: Server, binary: bool) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.get_model_metadata("text")["inputs"] == [{"name": "text", "datatype": "INT64", "shape": [-1, -1]}]
    for length in (1, 64, 5):
        rows = np.arange(2 * length, dtype=np.int64).reshape(2, length)
        given = triton.InferInput("text", list(rows.shape), "INT64")
        given.set_data_from_numpy(rows, binary_data=binary)
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("sums", "sum")]
        found = client.infer("text", [given], outputs=wanted)
        assert found.as_numpy("sum")[:, 0].tolist() == rows.sum(axis=1).tolist()
        assert found.as_numpy("sums").shape == (2, length)
    client.close()


def test_a_length_that_the_model_does_not_take_is_refused(server: Server) -> None:
    refused = server.ask("POST", PLAIN, {"inputs": {"text": [[1] * 65]}})
    assert refused.status == 400
    assert refused.content["error"] == (
        "input `text` has rows of the shape [65], where this model takes [1] to [64] - at `$.inputs.text`"
    )


def test_what_is_printed_and_told_names_the_lengths(server: Server) -> None:
    log = server.log.read_text()
    assert "in text INT64 [batch, length]" in log
    assert "rows of text from [1] to [64]" in log
    [model] = server.ask("GET", "/v2/models/text/stats").content["model_stats"]
    assert [each["row_shapes"]["text"] for each in model["calibration"]["by_shapes"]] == [[16], [1], [64]]


def test_without_a_profile_it_does_not_start(tmp_path: Path) -> None:
    model = {"name": "text", "path": str(write_text_model(tmp_path / "text.onnx"))}
    with pytest.raises(AssertionError) as caught, serving(tmp_path, NOMADSERVE_MODELS=json.dumps([model])):
        pass
    assert "may differ, and nothing says how much: text INT64 [batch, length]" in str(caught.value)
    assert 'hint: give `profiles`: [{"text": {"min": [1, 1], "opt": [8, 64], "max": [32, 512]}}]' in str(caught.value)
