"""`nomadserve serve`: the command line becomes the environment of the runtime."""

import json
from pathlib import Path
from typing import Any

import pytest

import nomadserve_runtime.__main__ as runtime
from nomadserve import cli
from nomadserve.cli.serve import model_name


@pytest.fixture
def started_with(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment that the runtime was started with."""
    environ: dict[str, str] = {}

    def main(given: dict[str, str]) -> int:
        environ.update(given)
        return 7

    monkeypatch.setattr(runtime, "main", main)
    monkeypatch.delenv("NOMADSERVE_MODELS", raising=False)
    return environ


def test_a_file_becomes_a_model_and_the_exit_code_is_the_runtimes(started_with: dict[str, str]) -> None:
    assert cli.run(["serve", "models/digits.onnx"]) == 7
    expected: list[dict[str, Any]] = [{"name": "digits", "path": str(Path("models/digits.onnx").absolute())}]
    assert json.loads(started_with["NOMADSERVE_MODELS"]) == expected


def test_options_set_the_variables_of_the_contract(started_with: dict[str, str]) -> None:
    options = (
        "--name d --engine fake --max-batch 8 --threads 2 --service s --version v2 --host 0.0.0.0 --port 81 "
        "--queue-max 9 --queue-timeout 1s --max-delay 2ms --drain-delay 3s --drain-timeout 4s --log-level debug "
        "--latency-target 5ms --log-format json --log-file /tmp/log --access-log --repository"
    )
    cli.run(["serve", "/m.json", *options.split()])
    assert json.loads(started_with["NOMADSERVE_MODELS"]) == [
        {"name": "d", "path": "/m.json", "engine": "fake", "max_batch": 8, "threads": 2}
    ]
    assert {
        "NOMADSERVE_SERVICE": "s",
        "NOMADSERVE_VERSION": "v2",
        "NOMADSERVE_HOST": "0.0.0.0",
        "NOMADSERVE_PORT": "81",
        "NOMADSERVE_QUEUE_MAX": "9",
        "NOMADSERVE_QUEUE_TIMEOUT": "1s",
        "NOMADSERVE_BATCH_MAX_DELAY": "2ms",
        "NOMADSERVE_DRAIN_DELAY": "3s",
        "NOMADSERVE_DRAIN_TIMEOUT": "4s",
        "NOMADSERVE_BATCH_LATENCY_TARGET": "5ms",
        "NOMADSERVE_LOG_LEVEL": "debug",
        "NOMADSERVE_LOG_FORMAT": "json",
        "NOMADSERVE_LOG_FILE": "/tmp/log",
        "NOMADSERVE_ACCESS_LOG": "1",
        "NOMADSERVE_REPOSITORY": "1",
    }.items() <= started_with.items()


def test_what_a_plan_is_asked_for_becomes_keys_of_the_model(started_with: dict[str, str]) -> None:
    options = "--engine tensorrt --precision fp16 --instances 2 --warmup 5 --profile x=1,8:4,8:16,8"
    cli.run(["serve", "/m.onnx", *options.split()])
    (model,) = json.loads(started_with["NOMADSERVE_MODELS"])
    assert (model["precision"], model["instances"], model["warmup"]) == ("fp16", 2, 5)
    assert model["profiles"] == [{"x": {"min": [1, 8], "opt": [4, 8], "max": [16, 8]}}]


def test_the_environment_is_kept_where_no_option_says_otherwise(
    started_with: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMADSERVE_MODELS", "[]")
    monkeypatch.setenv("NOMADSERVE_PORT", "1234")
    cli.run(["serve", "--version", "v3"])
    assert (started_with["NOMADSERVE_MODELS"], started_with["NOMADSERVE_PORT"]) == ("[]", "1234")
    assert started_with["NOMADSERVE_VERSION"] == "v3"


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (
            [],
            "error: no model to serve\n"
            "hint: name a file, `nomadserve serve model.onnx`, or set `NOMADSERVE_MODELS` as a job does\n",
        ),
        (
            ["--max-batch", "3"],
            "error: `--max-batch` without a model file\nhint: `nomadserve serve MODEL` names the file\n",
        ),
    ],
)
def test_nothing_to_serve_is_an_error(
    arguments: list[str], printed: str, started_with: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["serve", *arguments]) == 2
    assert capsys.readouterr().err == printed
    assert started_with == {}


@pytest.mark.parametrize(
    ("file", "name"), [("digits-v1.onnx", "digits-v1"), ("my model (2).onnx", "my-model-2"), ("äö.onnx", "model")]
)
def test_the_file_names_the_model(file: str, name: str) -> None:
    assert model_name(Path(file)) == name
