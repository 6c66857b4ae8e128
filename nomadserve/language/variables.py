"""The variables of a service file, and who gives them: the command line over files over the environment."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nomadserve.errors import WrongInput
from nomadserve.language.hcl import SyntaxProblem, parse

_PREFIX = "NOMADSERVE_VAR_"


class Variables(dict[str, str]):
    """Values by name.

    Attributes:
        from_flags: names given on the command line, which a file must use: a typo there would go unnoticed.
    """

    from_flags: frozenset[str] = frozenset()


def collect_variables(
    vars: Sequence[str] = (), var_files: Sequence[Path] = (), environ: Mapping[str, str] | None = None
) -> Variables:
    """Merge `--var NAME=VALUE`, `--var-file FILE` (HCL or JSON; a later file wins) and `NOMADSERVE_VAR_NAME`."""
    found = Variables()
    for name, value in (environ or {}).items():
        if name.startswith(_PREFIX):
            found[name.removeprefix(_PREFIX)] = value
    for file in var_files:
        found.update(_from_file(file))
    flags = dict(_from_flag(text) for text in vars)
    found.update(flags)
    found.from_flags = frozenset(flags)
    return found


def _from_flag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise WrongInput(f"`--var {text}` is not a name and its value", hint="write it like `--var version=v1`")
    return name, value


def _from_file(file: Path) -> Iterator[tuple[str, str]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongInput(f"can't read the variables in `{file}`: {_reason(error)}", hint="see `--var-file`") from error
    pairs = _from_json(file, text) if file.suffix == ".json" else _from_hcl(file, text)
    for name, value, line in pairs:
        if not name.isidentifier() or not isinstance(value, str | int | float | bool):
            raise WrongInput(f"{file}:{line}: the variable `{name}` is not a text, a number, true or false", hint=_FORM)
        yield name, json.dumps(value) if isinstance(value, bool) else str(value)


_FORM = 'write one `name = "value"` on each line'


def _from_json(file: Path, text: str) -> Iterator[tuple[str, Any, int]]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise WrongInput(
            f"{file}:{error.lineno}: not JSON: {error.msg.lower()}", hint='like {"version": "v1"}'
        ) from error
    if not isinstance(data, dict):
        raise WrongInput(f"{file}:1: not a JSON object", hint='write it like {"version": "v1"}')
    yield from ((name, value, 1) for name, value in data.items())


def _from_hcl(file: Path, text: str) -> Iterator[tuple[str, Any, int]]:
    try:
        root = parse(text)
    except SyntaxProblem as error:
        raise WrongInput(f"{file}:{error.line}: {error.message}", hint=error.hint) from error
    for block in root.blocks:
        raise WrongInput(f"{file}:{block.line}: `{block.kind}` is a block", hint=_FORM)
    yield from ((attribute.key, attribute.value, attribute.line) for attribute in root.attributes)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return (error.strerror or str(error)).lower()
