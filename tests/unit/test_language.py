"""Service files as users write them: what is taken, and every message about what is not.

Each file in `bad_files` has its message beside it, exactly as a user reads it. To renew them after a wanted change:
`NOMADSERVE_UPDATE_GOLDEN=1 pytest tests/unit/test_language.py`, then read the diff.
"""

import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from nomadserve import spec
from nomadserve.errors import WrongInput
from nomadserve.language import BadServiceFile, collect_variables, load_service
from nomadserve.language.hcl import parse
from nomadserve.language.template import render_template

BAD_FILES = Path(__file__).parent / "bad_files"
NAMES = sorted(path.name.removesuffix(".hcl.j2") for path in BAD_FILES.glob("*.hcl.j2"))
FLAGS = {"unused_variable": ["verison=v2"]}
MODEL = 'model "digits" {\n source = "https://models.example/digits.onnx"\n}\n'


def load(folder: Path, text: str, *flags: str) -> spec.Service:
    file = folder / "service.hcl.j2"
    file.write_text(text, encoding="utf-8")
    return load_service(file, collect_variables(flags))


def service(body: str) -> str:
    return f'service "digits" {{\n{MODEL}{body}\n}}\n'


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_file_is_answered_with_exactly_this_message(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BAD_FILES)
    with pytest.raises(BadServiceFile) as caught:
        load_service(Path(f"{name}.hcl.j2"), collect_variables(FLAGS.get(name, [])))
    message = caught.value.message.replace(str(BAD_FILES), "{folder}") + "\n"
    expected = BAD_FILES / f"{name}.txt"
    if "NOMADSERVE_UPDATE_GOLDEN" in os.environ:
        expected.write_text(message, encoding="utf-8")
    assert message == expected.read_text(encoding="utf-8")
    assert caught.value.exit_code == 2
    assert all(problem.hint for problem in caught.value.problems), "every problem names the way out"


def test_there_is_a_bad_file_for_every_kind_of_mistake() -> None:
    assert len(NAMES) >= 24


def test_the_smallest_file_has_a_default_for_everything_else(tmp_path: Path) -> None:
    (tmp_path / "digits.onnx").write_bytes(b"model")
    found = load(tmp_path, 'service "digits" {\n model "digits" {\n source = "digits.onnx"\n }\n}\n')
    checksum = "sha256:" + hashlib.sha256(b"model").hexdigest()
    model = spec.Model(name="digits", source=str(tmp_path.resolve() / "digits.onnx"), checksum=checksum)
    assert found == spec.Service(name="digits", models=(model,))
    assert (found.version, found.driver, found.request_timeout, found.queue.max) == ("v1", "raw_exec", 300.0, 256)


def test_values_arrive_in_the_units_of_their_types(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        service(
            'request_timeout = "1m30s"\nenv = { A = "1", "B-less" = null, C = "$${x}" }\n'
            'resources {\n cpu = 200\n memory = "256 MiB"\n}\nbatching {\n max_delay = "5ms"\n}\n'
            'scaling {\n min = 1\n max = 9\n target "in_flight" {\n value = 4\n }\n'
            " query = <<-EOT\n    sum(x)\n      / 2\n  EOT\n}"
        ),
    )
    assert found.request_timeout == 90.0
    assert found.env == {"A": "1", "C": "${x}"}
    assert (found.resources.cpu_mhz, found.resources.memory) == (200, 256)
    assert found.batching.max_delay == 0.005
    assert found.scaling is not None
    assert found.scaling.targets == (spec.InFlight(value=4.0),)
    assert found.scaling.query == "sum(x)\n  / 2"


def test_each_repeated_block_is_kept_in_its_order(tmp_path: Path) -> None:
    loop = (
        '{% for n in range(3) %}\nmodel "m{{ n }}" {\n source = "https://models.example/{{ n }}.onnx"\n}\n{% endfor %}'
    )
    assert [model.name for model in load(tmp_path, service(loop)).models] == ["digits", "m0", "m1", "m2"]


def test_a_link_to_a_model_is_followed_so_that_moving_it_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "v1.onnx").write_bytes(b"one")
    (tmp_path / "current.onnx").symlink_to("v1.onnx")
    found = load(tmp_path, 'service "digits" {\n model "digits" {\n source = "current.onnx"\n }\n}\n')
    assert found.models[0].source == str(tmp_path.resolve() / "v1.onnx")


def test_a_right_checksum_of_a_local_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"one")
    checksum = "sha256:" + hashlib.sha256(b"one").hexdigest()
    text = f'service "digits" {{\n model "digits" {{\n source = "m.onnx"\n checksum = "{checksum}"\n }}\n}}\n'
    assert load(tmp_path, text).models[0].checksum == checksum


def test_a_folder_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(BadServiceFile, match="can't read the model file"):
        load(tmp_path, 'service "digits" {\n model "digits" {\n source = "."\n }\n}\n')


def test_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    text = service("replicas = 2")
    assert load(tmp_path, text.replace("\n", "\r\n")) == load(tmp_path, text)


@pytest.mark.parametrize("path", ["missing.hcl.j2", "."])
def test_a_file_that_cannot_be_read_is_wrong_input(path: str, tmp_path: Path) -> None:
    with pytest.raises(WrongInput, match="can't read") as caught:
        load_service(tmp_path / path, {})
    assert caught.value.hint


def test_a_binary_file_is_wrong_input(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\xff\xfe")
    with pytest.raises(WrongInput, match="is not a text in UTF-8"):
        load_service(tmp_path / "model.onnx", {})


# Where a line of the rendered text comes from.


def line_of_here(template: str) -> int:
    rendered = render_template(template, {"word": "HERE"}, file="f")
    line = next(number for number, text in enumerate(rendered.text.split("\n"), 1) if "HERE" in text)
    return rendered.template_line(line)


@pytest.mark.parametrize(
    "template",
    [
        "a\nb\nHERE\n",
        "{# one\ntwo #}\nHERE\n",
        "{% set x = 1 -%}\n\nHERE\n",
        "{%- set x = 1 -%}\n\n   HERE\n",
        "{% for i in range(5) %}\n\n{% endfor %}HERE\n",
        "{% for i in range(5) %}{{ i }}\n{% endfor %}\nHERE\n",
        "{% if false %}\n{% else %}\nHERE{% endif %}\n",
        "{{ 'x\\ny\\nz' }}\n\nHERE\n",
        "{% raw %}{{\n}}{% endraw %}\nHERE\n",
        "{% macro m() %}\n\nHERE\n{% endmacro %}\n{{ m() }}\n",
        "\n\n{{ word }}\n",
        "\n\nx {{- word }}\n",
        "{% set block %}\n\nHERE{% endset %}\n\n\n{{ block | trim }}\n",
        "\r\n\r\nHERE\r\n",
    ],
)
def test_every_line_is_traced_to_the_template(template: str) -> None:
    assert line_of_here(template) == 3


def test_every_round_of_a_loop_comes_from_the_same_lines() -> None:
    rendered = render_template("{% for i in range(3) %}\na\nb\n{% endfor %}\nend", {}, file="f")
    found = [(text, rendered.template_line(number)) for number, text in enumerate(rendered.text.split("\n"), 1) if text]
    assert found == [("a", 2), ("b", 3)] * 3 + [("end", 5)]


def test_filters_see_the_text_without_the_marks() -> None:
    template = "{% set x %}ab{% endset %}{{ x | length }} {{ x | upper }}\n{% filter trim %}\n  c\n{% endfilter %}"
    assert render_template(template, {}, file="f").text == "2 AB\nc"


# Variables.


def test_the_command_line_wins_over_files_and_those_over_the_environment(tmp_path: Path) -> None:
    first, second = tmp_path / "a.hcl", tmp_path / "b.json"
    first.write_text('b = "file"\nc = "file"\nn = 3\nyes = true\n')
    second.write_text('{"c": "json", "share": 0.5}')
    environ = {f"NOMADSERVE_VAR_{name}": "environment" for name in "abcd"} | {"HOME": "/"}
    assert collect_variables(["d=flag", "e=x=y"], [first, second], environ) == {
        "a": "environment",
        "b": "file",
        "c": "json",
        "d": "flag",
        "e": "x=y",
        "n": "3",
        "yes": "true",
        "share": "0.5",
    }


@pytest.mark.parametrize("flag", ["version", "=v1", "1=v1", "a-b=c", ""])
def test_a_flag_without_name_and_value_is_refused(flag: str) -> None:
    with pytest.raises(WrongInput, match="is not a name and its value") as caught:
        collect_variables([flag])
    assert caught.value.hint == "write it like `--var version=v1`"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.hcl", 'x = "1', r"a.hcl:1: a text begins on this line and has no closing quote"),
        ("a.hcl", "\nx {\n}\n", r"a.hcl:2: `x` is a block"),
        ("a.hcl", "x = [1]\n", r"a.hcl:1: the variable `x` is not a text, a number, true or false"),
        ("a.hcl", "x = y\n", r"a.hcl:1: the variable `x` is not a text, a number, true or false"),
        ("a.json", "{", r"a.json:1: not JSON"),
        ("a.json", "[]", r"a.json:1: not a JSON object"),
        ("a.json", '{"x": null}', r"a.json:1: the variable `x` is not a text"),
    ],
)
def test_a_bad_variable_file_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(WrongInput, match=message) as caught:
        collect_variables([], [tmp_path / name])
    assert caught.value.hint


def test_a_missing_variable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongInput, match=r"can't read the variables in .*no such file"):
        collect_variables([], [tmp_path / "missing.hcl"])


def test_only_flags_must_be_used(tmp_path: Path) -> None:
    file = tmp_path / "vars.hcl"
    file.write_text('other = "for another service"\n')
    (tmp_path / "service.hcl.j2").write_text(service(""))
    variables = collect_variables([], [file], {"NOMADSERVE_VAR_more": "x"})
    assert load_service(tmp_path / "service.hcl.j2", variables).name == "digits"


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{{ a }}{{ b }}{{ a }}", ["a", "b"]),
        ("{{ a | default('x') }}{{ 'x' if b is defined }}", []),
        ("{% if a %}x{% endif %}{% for i in b %}x{% endfor %}", ["a", "b"]),
        ("{{ a + 1 }}{{ -b }}{{ c() }}{{ d.e }}{{ f['g'] }}", ["a", "b", "c", "d", "f"]),
        ("{{ a ~ 'x' }}{{ b == 'x' }}{{ c | upper }}{{ d | int }}{{ e | length }}", ["a", "b", "c", "d", "e"]),
        ("{% set a = 1 %}{{ a }}", []),
        ("{{ 'x' in a }}{{ a < 1 }}", ["a"]),
    ],
)
def test_every_undefined_variable_is_found_however_it_is_used(template: str, names: list[str], tmp_path: Path) -> None:
    if not names:
        render_template(template, {}, file="f")
        return
    with pytest.raises(BadServiceFile) as caught:
        load(tmp_path, template)
    expected = sorted(f"the variable `{name}` is not defined" for name in names)
    assert sorted(problem.message for problem in caught.value.problems) == expected


def test_a_template_cannot_reach_into_python(tmp_path: Path) -> None:
    with pytest.raises(BadServiceFile):
        load(tmp_path, service("region = \"{{ ''.__class__.__mro__[1].__subclasses__() }}\""))


# HCL.


def test_every_kind_of_literal_is_read() -> None:
    root = parse('a = "x\\t\\"y\\" \\u00e9"\nb = -3\nc = 1.5\nd = true\ne = null\nf = [1, "x", [2]]\n')
    values = {attribute.key: attribute.value for attribute in root.attributes}
    assert values == {"a": 'x\t"y" é', "b": -3, "c": 1.5, "d": True, "e": None, "f": [1, "x", [2]]}


def test_comments_of_every_kind_are_skipped() -> None:
    root = parse('# one {\n// two "\n/* three\n } */\na = 1 # four\nb = 2 // five\n')
    assert [(attribute.key, attribute.line) for attribute in root.attributes] == [("a", 5), ("b", 6)]


def test_escaped_marks_stand_for_themselves() -> None:
    root = parse('a = "$${x} %%{y} $5 100%"\n')
    assert root.attributes[0].value == "${x} %{y} $5 100%"


# The reference.


BLOCKS = [
    member
    for member in (getattr(spec, name) for name in spec.__all__)
    if isinstance(member, type) and issubclass(member, spec.Block)
]


def test_the_reference_explains_every_key() -> None:
    reference = (Path(__file__).parents[2] / "docs" / "service-file.md").read_text(encoding="utf-8")
    assert spec.Service in BLOCKS
    for cls in BLOCKS:
        for info in msgspec.structs.fields(cls):
            assert f"`{info.encode_name}`" in reference, f"{cls.__name__}.{info.encode_name}"
        for key in cls.planned:
            assert f"`{key}`" in reference, f"{cls.__name__}.{key}"
