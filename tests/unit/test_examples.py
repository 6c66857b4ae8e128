"""Every piece of a service file that the documents show is one that nomadserve takes."""

import re
from pathlib import Path

import pytest

from nomadserve.language import load_service

ROOT = Path(__file__).parents[2]
MODEL = 'model "digits" {\n  source = "https://models.example/digits.onnx"\n}\n'
# Blocks of other languages, which look the same: agents' configuration and policies.
FOREIGN = ("client {", "consul {", "namespace ", "node", "service_prefix", "# ")


def examples() -> list[tuple[str, str]]:
    """Document and text of each block."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = [(path.name, block) for path in documents for block in blocks(path.read_text(encoding="utf-8"))]
    return [(name, block) for name, block in found if not block.startswith(FOREIGN)]


def blocks(text: str) -> list[str]:
    return [str(block) for block in re.findall(r"```hcl\n(.*?)```", text, re.DOTALL)]


def whole(block: str) -> str:
    """The block as a service file: what it leaves out around itself is added, and what it leaves open is filled in."""
    block = block.replace("sha256:…", "sha256:" + "0" * 64)
    if block.startswith("service "):
        return block
    model = "" if "model " in block.splitlines()[0] else MODEL
    gpu = "gpu {\n}\n" if "precision" in block else ""  # what only a GPU's engine understands
    replicas = "replicas = 3\n" if "on_demand_min" in block else ""  # of which some are kept from spot nodes
    return f'service "my-api" {{\n{model}{gpu}{replicas}{block}}}\n'


def test_there_are_examples() -> None:
    assert {"README.md", "service-file.md", "scaling.md"} <= {name for name, _ in examples()}


@pytest.mark.parametrize(("document", "block"), examples())
def test_an_example_is_a_service_file(document: str, block: str, tmp_path: Path) -> None:
    file = tmp_path / "service.hcl.j2"
    (tmp_path / "models").mkdir()
    for name in re.findall(r'source\s*=\s*"(models/[^"]*)"', block):
        (tmp_path / re.sub(r"\{\{.*?\}\}", "v1", name)).write_bytes(b"any")
    file.write_text(whole(block), encoding="utf-8")
    assert load_service(file, {}).name
