"""`nomadserve serve` as NVIDIA's own client sees it: `tritonclient.http`, unmodified."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.http as triton

from tests.contract.serve_process import Server, serving
from tests.unit.runtime.models import write_fake, write_sum_model, write_words_model

ROWS = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
SUMS = [[10, 11], [26, 27]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("triton")
    every = [{"name": f"in_{name}", "datatype": name, "shape": [3]} for name in DATATYPES]
    half = write_sum_model(folder / "half.onnx", kind=onnx.TensorProto.FLOAT16)
    models = [
        {"name": "sum", "path": str(write_sum_model(folder / "sum.onnx")), "max_batch": 8},
        {"name": "half", "path": str(half)},
        {"name": "words", "path": str(write_words_model(folder / "words.onnx"))},
        {"name": "every", "engine": "fake", "path": str(write_fake(folder / "every.json", inputs=every))},
    ]
    environ = {"NOMADSERVE_MODELS": json.dumps(models), "NOMADSERVE_VERSION": "v7", "NOMADSERVE_REPOSITORY": "1"}
    with serving(folder, **environ) as running:
        yield running


DATATYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    connected = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield connected
    connected.close()


def tensor(array: np.ndarray = ROWS, *, name: str = "x", datatype: str = "FP32", binary: bool = True) -> Any:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sum")
    assert client.is_model_ready("sum", "v7")
    assert not client.is_model_ready("cat")
    assert set(client.get_server_metadata()["extensions"]) == {
        "binary_tensor_data",
        "model_configuration",
        "model_repository",
        "schedule_policy",
        "statistics",
    }
    assert client.get_model_metadata("sum", "7")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]


def test_the_configuration(client: Any) -> None:
    configuration = client.get_model_config("sum")
    assert configuration["max_batch_size"] == 8
    assert configuration["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]


@pytest.mark.parametrize("binary_out", [None, True, False])
@pytest.mark.parametrize("binary_in", [True, False])
def test_inference_in_binary_and_in_json(binary_in: bool, binary_out: bool | None, client: Any) -> None:
    outputs = None if binary_out is None else [triton.InferRequestedOutput("y", binary_data=binary_out)]
    result = client.infer("sum", [tensor(binary=binary_in)], outputs=outputs, request_id="mine")
    assert result.as_numpy("y").tolist() == SUMS
    reply = result.get_response()
    assert (reply["id"], reply["model_name"], reply["model_version"]) == ("mine", "sum", "v7")
    assert ("data" in reply["outputs"][0]) == (binary_out is False)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_both_ways(coding: str, client: Any) -> None:
    result = client.infer(
        "sum", [tensor()], request_compression_algorithm=coding, response_compression_algorithm=coding
    )
    assert result.as_numpy("y").tolist() == SUMS


@pytest.mark.parametrize("binary", [True, False])
def test_half_precision(binary: bool, client: Any) -> None:
    """In JSON too: every half is a number that JSON can write, whatever the protocol says of it."""
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    given = tensor(ROWS.astype(np.float16), datatype="FP16", binary=binary)
    result = client.infer("half", [given], outputs=outputs)
    assert result.as_numpy("y").dtype == np.float16
    assert result.as_numpy("y").tolist() == SUMS


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
def test_strings(binary_in: bool, binary_out: bool, client: Any) -> None:
    words = np.array([["cat"], ["Zürich"], [""]], np.object_)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("same", "place")]
    given = tensor(words, name="word", datatype="BYTES", binary=binary_in)
    result = client.infer("words", [given], outputs=outputs)
    same = [[word.decode() if binary_out else word] for [word] in result.as_numpy("same").tolist()]
    assert same == words.tolist()
    assert result.as_numpy("place").tolist() == [[1], [0], [0]]


def test_strings_in_the_configuration(client: Any) -> None:
    """Triton's name for BYTES there is another one."""
    assert client.get_model_config("words")["input"] == [{"name": "word", "data_type": "TYPE_STRING", "dims": [1]}]
    assert client.get_model_metadata("words")["inputs"] == [{"name": "word", "datatype": "BYTES", "shape": [-1, 1]}]


def test_every_datatype_of_numbers_in_one_request(client: Any) -> None:
    inputs = [
        tensor(np.array([[1, 0, 1]]).astype(kind), name=f"in_{name}", datatype=name) for name, kind in DATATYPES.items()
    ]
    assert client.infer("every", inputs[::-1]).as_numpy("y").tolist() == [[2 * len(DATATYPES)]]


def test_a_version_in_the_path(client: Any) -> None:
    assert client.infer("sum", [tensor()], model_version="v7").as_numpy("y").tolist() == SUMS
    with pytest.raises(triton.InferenceServerException, match="is here in version `v7`, not `v8`"):
        client.infer("sum", [tensor()], model_version="v8")


def test_parameters_of_the_scheduler(client: Any) -> None:
    assert client.infer("sum", [tensor()], priority=1, timeout=30_000_000).as_numpy("y").tolist() == SUMS
    with pytest.raises(triton.InferenceServerException, match="`sequence_id` is not served here"):
        client.infer("sum", [tensor()], sequence_id=7, sequence_start=True)


def test_what_is_wrong_arrives_as_the_clients_own_exception(client: Any) -> None:
    wrong = tensor(np.zeros((1, 5), np.float32))
    with pytest.raises(triton.InferenceServerException, match=r"takes the shape \[rows, 4\], not \[1, 5\]"):
        client.infer("sum", [wrong])
    with pytest.raises(triton.InferenceServerException, match="is FP32, not BYTES"):
        client.infer("sum", [tensor(np.array([[b"a", b"b", b"c", b"d"]], np.object_), datatype="BYTES")])


def test_raw_binary(client: Any, server: Server) -> None:
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": "0"}
    reply = server.ask("POST", "/v2/models/sum/infer", ROWS[0].tobytes(), headers=headers)
    assert reply.headers["content-type"] == "application/octet-stream"
    result = client.parse_response_body(reply.body, header_length=int(reply.headers["inference-header-content-length"]))
    assert result.as_numpy("y").tolist() == [SUMS[0]]


def test_a_body_that_the_client_generated(client: Any, server: Server) -> None:
    body, header_length = client.generate_request_body([tensor()])
    headers = {"inference-header-content-length": str(header_length)}
    reply = server.ask("POST", "/v2/models/sum/infer", body, headers=headers)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/octet-stream"


def test_statistics_count_what_was_asked(client: Any) -> None:
    before = client.get_inference_statistics("sum")["model_stats"][0]
    client.infer("sum", [tensor()])
    after = client.get_inference_statistics("sum")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 2
    assert after["execution_count"] - before["execution_count"] == 1
    spent, spent_before = after["inference_stats"], before["inference_stats"]
    stages = ("queue", "compute_input", "compute_infer", "compute_output")
    for part in ("success", *stages):
        assert spent[part]["count"] - spent_before[part]["count"] == 1
        assert spent[part]["ns"] > spent_before[part]["ns"]
    assert sum(spent[part]["ns"] for part in stages) == pytest.approx(spent["success"]["ns"], rel=1e-6, abs=10)
    assert [line["rows"] for line in after["calibration"]["batches"]] == [1, 2, 4, 8]
    assert len(client.get_inference_statistics()["model_stats"]) >= 1


def test_models_are_unloaded_and_loaded_while_others_serve(client: Any) -> None:
    client.unload_model("half")
    assert {entry["name"]: entry["state"] for entry in client.get_model_repository_index()} == {
        "sum": "READY",
        "half": "UNAVAILABLE",
        "words": "READY",
        "every": "READY",
    }
    assert not client.is_model_ready("half")
    with pytest.raises(triton.InferenceServerException, match="the model `half` is not loaded"):
        client.infer("half", [tensor(ROWS.astype(np.float16), datatype="FP16")])
    assert client.infer("sum", [tensor()]).as_numpy("y").tolist() == SUMS
    client.load_model("half")
    assert client.infer("half", [tensor(ROWS.astype(np.float16), datatype="FP16")]).as_numpy("y").tolist() == SUMS


def test_a_file_that_went_bad_is_not_loaded_again(tmp_path: Path) -> None:
    path = write_fake(tmp_path / "m.json")
    models = [{"name": "m", "engine": "fake", "path": str(path)}]
    with serving(tmp_path, NOMADSERVE_MODELS=json.dumps(models), NOMADSERVE_REPOSITORY="1") as server:
        client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
        client.unload_model("m")
        path.write_text("no model")
        with pytest.raises(triton.InferenceServerException, match="does not describe a fake model"):
            client.load_model("m")
        assert client.get_model_repository_index()[0]["state"] == "UNAVAILABLE"
        write_fake(path)
        client.load_model("m")
        assert client.get_model_repository_index()[0]["state"] == "READY"
        client.close()


def test_loading_is_off_unless_it_was_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path, str(write_fake(tmp_path / "m.json")), "--engine", "fake") as server:
        client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
        assert "model_repository" not in client.get_server_metadata()["extensions"]
        with pytest.raises(triton.InferenceServerException, match="`NOMADSERVE_REPOSITORY` is not 1"):
            client.unload_model("m")
        assert client.is_model_ready("m")
        client.close()
