"""`docs/runtime.md` names every option, variable, route and status of the runtime."""

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nomadserve.cli import serve
from nomadserve_runtime import errors
from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.describe import EXTENSIONS, REPOSITORY_EXTENSION
from tests.unit.runtime.http import Bench
from tests.unit.runtime.models import fake_engine

DOCUMENT = (Path(__file__).parents[3] / "docs" / "runtime.md").read_text(encoding="utf-8")
FAULTS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.Fault)]


def routes() -> list[str]:
    async def schema() -> Any:
        bench = Bench(m=fake_engine())
        try:
            return (await bench.client("GET", "/schema/openapi.json")).content
        finally:
            bench.close()

    return [path for path in asyncio.run(schema())["paths"] if "{version}" not in path]


def test_every_option_of_the_command_is_there() -> None:
    options = {option for parameter in serve.command.params for option in parameter.opts if option.startswith("--")}
    assert options - {"--name", "--help"} <= set(re.findall(r"`(--[a-z-]+)`", DOCUMENT))


@pytest.mark.parametrize("variable", ["NOMADSERVE_MODELS", *serve.VARIABLES.values(), *serve.SWITCHES.values()])
def test_every_variable_is_there(variable: str) -> None:
    assert f"`{variable}`" in DOCUMENT


@pytest.mark.parametrize("key", [field.name for field in msgspec.structs.fields(ModelConfig)])
def test_every_key_of_a_model_is_there(key: str) -> None:
    assert f"`{key}`" in DOCUMENT or f'"{key}"' in DOCUMENT


def test_every_route_is_there() -> None:
    for route in routes():
        short = route.replace("{name}", "{m}")
        last = f"…/{short.rpartition('/')[2]}"
        assert f"`{short}`" in DOCUMENT or f" {short}`" in DOCUMENT or f"`{last}`" in DOCUMENT, route


@pytest.mark.parametrize("fault", [kind for kind in FAULTS if kind is not errors.HungUp and "reason" in vars(kind)])
def test_every_status_and_reason_is_there(fault: type[errors.Fault]) -> None:
    assert re.search(rf"^\| {fault.status} \| `{fault.reason}` \|", DOCUMENT, re.MULTILINE)


@pytest.mark.parametrize("extension", [*EXTENSIONS, REPOSITORY_EXTENSION])
def test_every_extension_is_there(extension: str) -> None:
    assert f"`{extension}`" in DOCUMENT
