"""`docs/engines.md` names every port of a local cluster."""

import re
from pathlib import Path

from nomadserve.engines.local.ports import ports_at

DOCUMENT = (Path(__file__).parents[3] / "docs" / "engines.md").read_text(encoding="utf-8")


def test_the_document_names_every_port_and_no_other() -> None:
    table = DOCUMENT.partition("| port | at offset 0 |")[2].partition("\n\n")[0]
    named = {int(number) for number in re.findall(r"\b\d{4,5}\b", table)}
    assert named == set(ports_at(0).all())
