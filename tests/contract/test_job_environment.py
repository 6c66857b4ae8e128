"""The environment that a job sets is the one that the runtime reads."""

import json
import math
from pathlib import Path
from typing import Any

import hcl2
import pytest
from hcl2 import SerializationOptions

from nomadserve.language import load_service
from nomadserve.render import render_job
from nomadserve_runtime.config import load_config
from nomadserve_runtime.engines.profiles import profiles_of
from nomadserve_runtime.tensors import TensorSpec

IN_ALLOCATION = {
    "${NOMAD_IP_http}": "127.0.0.1",
    "${NOMAD_PORT_http}": "23456",
    "${NOMAD_TASK_DIR}": "/alloc/serve/local",
    "${NOMAD_ALLOC_ID}": "5e5bdc6f",
}
GOLDEN = Path(__file__).parents[1] / "unit" / "golden"


def environment(job: str) -> dict[str, str]:
    """The task's variables as Nomad sets them: HCL's escapes resolved, then its own `${…}` filled in."""
    options = SerializationOptions(strip_string_quotes=True, with_comments=False, explicit_blocks=False)
    parsed: Any = hcl2.loads(job, serialization_options=options)
    group = next(iter(parsed["job"][0].values()))["group"][0]["serve"]
    env: dict[str, str] = group["task"][0]["serve"]["env"][0]
    return {name: filled_in(str(value)) for name, value in env.items()}


def filled_in(text: str) -> str:
    text = text.replace("$${", "${").replace("%%{", "%{")
    for variable, value in IN_ALLOCATION.items():
        text = text.replace(variable, value)
    return text


def job(folder: Path, text: str) -> str:
    file = folder / "service.hcl.j2"
    file.write_text(text)
    return render_job(load_service(file, {}))


def test_what_the_service_file_says_reaches_the_runtime(tmp_path: Path) -> None:
    (tmp_path / "local.onnx").write_bytes(b"model")
    config = load_config(
        environment(
            job(
                tmp_path,
                'service "vision" {\n version = "v7"\n'
                ' model "local" {\n source = "local.onnx"\n max_batch = 8\n threads = 3\n }\n'
                ' model "remote" {\n source = "https://models.example/x/m.onnx"\n'
                f' checksum = "sha256:{"ab" * 32}"\n }}\n'
                ' model "fake" {\n source = "local.onnx"\n engine = "fake"\n }\n'
                ' batching {\n max_delay = "2ms"\n latency_target = "50ms"\n }\n'
                ' queue {\n max = 300\n timeout = "30s"\n }\n}\n',
            )
        )
    )
    assert (config.service, config.version, config.host, config.port) == ("vision", "v7", "127.0.0.1", 23456)
    assert (config.queue_max, config.queue_timeout_s, config.batch_delay_s_max) == (300, 30, 0.002)
    assert config.batch_latency_target_s == 0.05
    assert (config.drain_delay_s, config.drain_timeout_s, config.log_level) == (0, 25, "info")
    local, remote, fake = config.models
    assert (local.name, local.path, local.engine) == ("local", str(tmp_path.resolve() / "local.onnx"), "onnxruntime")
    assert (local.max_batch, local.threads) == (8, 3)
    assert local.checksum.startswith("sha256:")
    assert (remote.path, remote.checksum) == ("/alloc/serve/local/models/remote.onnx", f"sha256:{'ab' * 32}")
    assert (remote.max_batch, fake.engine) == (32, "fake")


def test_a_profile_reaches_every_engine_that_takes_rows_of_different_shapes(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"model")
    profile = 'profile {\n input "ids" {\n min = [1, 1]\n opt = [8, 64]\n max = [32, 512]\n }\n }\n'
    model = f'model "text" {{\n source = "text.onnx"\n engine = "onnxruntime"\n {profile} }}\n'
    config = load_config(environment(job(tmp_path, f'service "words" {{\n {model} }}\n')))
    [found] = profiles_of(config.models[0].profiles, [TensorSpec("ids", "INT64", (-1,))], title="it")
    assert (found.least, found.usual, found.most) == (((1,),), ((64,),), ((512,),))


def test_the_smallest_service_leaves_the_defaults_to_the_contract(tmp_path: Path) -> None:
    text = 'service "digits" {\n model "digits" {\n source = "https://models.example/digits.onnx"\n }\n}\n'
    config = load_config(environment(job(tmp_path, text)))
    assert (config.queue_max, config.queue_timeout_s, config.batch_delay_s_max) == (256, math.inf, 0)
    assert config.models[0].checksum == ""


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.nomad.hcl")), ids=lambda path: path.stem)
def test_every_golden_job_starts_a_runtime(golden: Path) -> None:
    variables = environment(golden.read_text(encoding="utf-8"))
    config = load_config(variables)
    assert [model.name for model in config.models] == [
        model["name"] for model in json.loads(variables["NOMADSERVE_MODELS"])
    ]


def test_the_drain_ends_before_nomad_kills() -> None:
    text = (GOLDEN / "small.nomad.hcl").read_text(encoding="utf-8")
    assert 'kill_timeout = "30s"' in text
    assert load_config(environment(text)).drain_timeout_s < 30
