from pathlib import Path
from typing import Any

import click
import pytest

from nomadserve.cli import run
from nomadserve.cli.build import command, wishes_of
from nomadserve.cli.shapes import PRECISIONS, profile
from nomadserve.spec import Mebibytes, Model

REFERENCE = (Path(__file__).parents[3] / "docs" / "tensorrt.md").read_text(encoding="utf-8")


def test_a_profile_names_the_shapes_of_each_input() -> None:
    assert profile("x=1,8:4,8:16,8  mask=1:4:16") == {
        "x": {"min": [1, 8], "opt": [4, 8], "max": [16, 8]},
        "mask": {"min": [1], "opt": [4], "max": [16]},
    }


def test_an_input_may_have_an_equals_sign_in_its_name() -> None:
    assert list(profile("a=b=1:2:3")) == ["a=b"]


@pytest.mark.parametrize("text", ["", "x", "x=1,8:4,8", "x=1:2:3:4", "=1:2:3", "x=a:b:c", "x=-1:2:3", "x=1,:2,:3,"])
def test_what_is_no_profile_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write it as `input=1,8:4,8:16,8`"):
        profile(text)


def test_wishes_have_the_names_of_the_runtime() -> None:
    options: dict[str, Any] = {"precision": None, "profiles": (), "workspace": Mebibytes(512), "max_batch": 8}
    assert wishes_of(options) == {"workspace_mib": 512, "max_batch": 8}


def test_the_service_file_and_the_command_know_the_same_precisions() -> None:
    (values,) = [kind.__args__ for kind in Model.__annotations__["precision"].__args__ if hasattr(kind, "__args__")]
    assert values == PRECISIONS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m.onnx", "--on-cluster", "FILE"], "`--on-cluster` takes no model file"),
        (["--precision", "fp16", "--on-cluster", "FILE"], "`--on-cluster` takes no model file"),
        (["m.onnx", "--timeout", "5"], "are for a service file"),
        (["--on-cluster", "missing.hcl.j2"], "does not exist"),
        (["m.onnx", "--workspace", "4"], "`4` is not an amount of memory with its unit"),
    ],
)
def test_options_that_contradict_one_another_exit_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "service.hcl.j2"
    file.write_text('service "m" {\n}\n')
    assert run(["build", *(str(file) if word == "FILE" else word for word in arguments)]) == 2
    assert said in capsys.readouterr().err


def test_the_reference_explains_every_option() -> None:
    of_the_cluster = {"file", "variables", "var_files", "timeout", "as_json", "target", "model"}
    names = [option.opts[-1] for option in command.params if option.name not in of_the_cluster]
    assert len(names) == 8
    for name in (*names, "--on-cluster", "--json"):
        assert f"`{name}" in REFERENCE, name
