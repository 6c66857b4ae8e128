import math
from pathlib import Path

import pytest

from nomadserve_runtime.config import ModelConfig, load_config, parse_duration
from nomadserve_runtime.errors import WrongSetting

DIGITS = '[{"name":"digits","path":"/models/digits.onnx"}]'


def problems(**environ: str) -> list[str]:
    with pytest.raises(WrongSetting) as caught:
        load_config({"NOMADSERVE_MODELS": DIGITS, **environ})
    assert caught.value.exit_code == 2
    return caught.value.message.splitlines()


def test_one_model_is_enough_and_all_else_has_defaults() -> None:
    config = load_config({"NOMADSERVE_MODELS": DIGITS})
    assert config.models == (ModelConfig(name="digits", path="/models/digits.onnx"),)
    assert (config.service, config.version) == ("digits", "dev")
    assert (config.host, config.port) == ("127.0.0.1", 8000)
    assert (config.queue_max, config.queue_timeout_s, config.batch_delay_s_max) == (256, math.inf, 0.0)
    assert (config.drain_delay_s, config.drain_timeout_s) == (0.0, 25.0)
    assert (config.log_level, config.alloc_id) == ("info", "")
    assert (config.log_format, config.log_file, config.access_log, config.repository) == ("text", "", False, False)


def test_every_variable_of_the_contract_is_read() -> None:
    config = load_config(
        {
            "NOMADSERVE_SERVICE": "reader",
            "NOMADSERVE_VERSION": "v2",
            "NOMADSERVE_MODELS": '[{"name":"digits","path":"/d","engine":"fake","max_batch":8,"threads":2,'
            f'"instances":1,"checksum":"sha256:{"0a" * 32}"}}]',
            "NOMADSERVE_HOST": "10.0.0.7",
            "NOMADSERVE_PORT": "23456",
            "NOMADSERVE_QUEUE_MAX": "64",
            "NOMADSERVE_QUEUE_TIMEOUT": "30s",
            "NOMADSERVE_BATCH_MAX_DELAY": "2ms",
            "NOMADSERVE_DRAIN_DELAY": "3s",
            "NOMADSERVE_DRAIN_TIMEOUT": "1m",
            "NOMADSERVE_LOG_LEVEL": "DEBUG",
            "NOMADSERVE_LOG_FORMAT": "json",
            "NOMADSERVE_LOG_FILE": "/var/log/serve.log",
            "NOMADSERVE_ACCESS_LOG": "1",
            "NOMADSERVE_REPOSITORY": "1",
            "NOMAD_ALLOC_ID": "abc",
        }
    )
    model = config.models[0]
    assert (model.engine, model.max_batch, model.threads) == ("fake", 8, 2)
    assert (config.service, config.version, config.host, config.port) == ("reader", "v2", "10.0.0.7", 23456)
    assert (config.queue_max, config.queue_timeout_s, config.batch_delay_s_max) == (64, 30.0, 0.002)
    assert (config.drain_delay_s, config.drain_timeout_s) == (3.0, 60.0)
    assert (config.log_level, config.alloc_id) == ("debug", "abc")
    assert (config.log_format, config.log_file) == ("json", "/var/log/serve.log")
    assert (config.access_log, config.repository) == (True, True)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("5s", 5), ("2m", 120), ("1m30s", 90), ("1.5h", 5400), ("50us", 5e-5), ("0", 0)],
)
def test_durations_are_written_as_in_go(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", "s", "-1s", "5 s", "5sec", "1s2", "ms5", " "])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("NOMADSERVE_PORT", "http", "`NOMADSERVE_PORT` is no whole number: `http`"),
        ("NOMADSERVE_PORT", "0", "`NOMADSERVE_PORT` is 0, not from 1 to 65535"),
        ("NOMADSERVE_QUEUE_MAX", "0", "`NOMADSERVE_QUEUE_MAX` is 0, not from 1 to 1000000"),
        (
            "NOMADSERVE_BATCH_MAX_DELAY",
            "2",
            "`NOMADSERVE_BATCH_MAX_DELAY` is no duration: write a number and a unit, such as `250ms`, `5s` or `2m`",
        ),
        (
            "NOMADSERVE_QUEUE_TIMEOUT",
            "0s",
            "`NOMADSERVE_QUEUE_TIMEOUT` is 0: no request could be answered; leave it away for no deadline",
        ),
        ("NOMADSERVE_LOG_LEVEL", "loud", "`NOMADSERVE_LOG_LEVEL` is `loud`, not `debug`, `info`, `warning` or `error`"),
        ("NOMADSERVE_LOG_FORMAT", "xml", "`NOMADSERVE_LOG_FORMAT` is `xml`, not `text` or `json`"),
        ("NOMADSERVE_ACCESS_LOG", "yes", "`NOMADSERVE_ACCESS_LOG` is `yes`, not `0` or `1`"),
        ("NOMADSERVE_SERVICE", "a b", "`NOMADSERVE_SERVICE` is no name: `a b` (letters, digits, `.`, `_` and `-`)"),
        ("NOMADSERVE_MODELS", "", "`NOMADSERVE_MODELS` is not set: it names the models to serve"),
        ("NOMADSERVE_MODELS", "[]", "`NOMADSERVE_MODELS` names no model"),
        (
            "NOMADSERVE_MODELS",
            "digits",
            "`NOMADSERVE_MODELS` can't be read: JSON is malformed: invalid character (byte 0)",
        ),
        (
            "NOMADSERVE_MODELS",
            '[{"name":"d","path":"/d","bath":1}]',
            "`NOMADSERVE_MODELS` can't be read: Object contains unknown field `bath` - at `$[0]`",
        ),
        (
            "NOMADSERVE_MODELS",
            '[{"name":"d","path":"/d","max_batch":0}]',
            "`NOMADSERVE_MODELS` can't be read: Expected `int` >= 1 - at `$[0].max_batch`",
        ),
        (
            "NOMADSERVE_MODELS",
            '[{"name":"d","path":"/d","engine":"torch"}]',
            "`NOMADSERVE_MODELS` names an unknown engine `torch`, not `onnxruntime`, `fake` or `tensorrt`"
            " - at `$[0].engine`",
        ),
        (
            "NOMADSERVE_MODELS",
            '[{"name":"a/b","path":"/d"}]',
            "`NOMADSERVE_MODELS` has a bad model name `a/b` - at `$[0].name`",
        ),
        ("NOMADSERVE_MODELS", '[{"name":"d","path":""}]', "`NOMADSERVE_MODELS` names no file - at `$[0].path`"),
        (
            "NOMADSERVE_MODELS",
            '[{"name":"d","path":"/d"},{"name":"d","path":"/e"}]',
            "`NOMADSERVE_MODELS` names a model twice",
        ),
        (
            "NOMADSERVE_MODELS",
            '[{"name":"d","path":"/d","checksum":"md5:1"}]',
            "`NOMADSERVE_MODELS` has a checksum that is not `sha256:` and 64 hex digits - at `$[0].checksum`",
        ),
        (
            "NOMADSERVE_MODELS",
            '[{"name":"d","path":"/d","instances":2}]',
            "`NOMADSERVE_MODELS` sets `instances`, which only the engine `tensorrt` has - at `$[0].instances`",
        ),
    ],
)
def test_a_problem_names_its_variable(variable: str, value: str, problem: str) -> None:
    assert problems(**{variable: value}) == [problem]


def test_all_problems_are_told_at_once() -> None:
    told = problems(NOMADSERVE_PORT="x", NOMADSERVE_QUEUE_MAX="y", NOMADSERVE_DRAIN_DELAY="z")
    assert [line.split("`")[1] for line in told] == [
        "NOMADSERVE_PORT",
        "NOMADSERVE_QUEUE_MAX",
        "NOMADSERVE_DRAIN_DELAY",
    ]


def test_paths_are_taken_as_they_are() -> None:
    assert Path(load_config({"NOMADSERVE_MODELS": DIGITS}).models[0].path) == Path("/models/digits.onnx")
