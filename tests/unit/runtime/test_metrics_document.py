"""`docs/metrics.md` names every series that `/metrics` prints, with its kind and its labels, and no other."""

import re
from pathlib import Path

import pytest

from nomadserve_runtime.gpu import GpuReading
from nomadserve_runtime.metrics import OUTCOMES, REFUSALS, Series, Stages

DOCUMENT = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")


def printed() -> tuple[dict[str, str], dict[str, set[str]]]:
    """Kind, and labels beside `model`, of every series that is printed."""
    series = Series()
    series.model("m")
    series.gpus = lambda: [GpuReading("GPU-1", 1, 2, 3, 4, 5)]
    kinds: dict[str, str] = {}
    labels: dict[str, set[str]] = {}
    for line in series.render().decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            kinds[name] = kind
        elif not line.startswith("#"):
            name = re.sub(r"_(bucket|sum|count)$", "", line.partition("{")[0].partition(" ")[0])
            labels.setdefault(name, set()).update(re.findall(r'(\w+)="', line))
    return kinds, {name: found - {"model", "le"} for name, found in labels.items()}


def documented() -> dict[str, tuple[str, set[str]]]:
    """The same as the tables of the document say it."""
    rows = re.findall(r"^\| `(nomadserve_\w+)(?:\{(\w+)\})?` \| (counter|gauge|histogram) \|", DOCUMENT, re.MULTILINE)
    return {name: (kind, {label} - {""}) for name, label, kind in rows}


def test_the_document_names_what_is_printed_and_nothing_else() -> None:
    kinds, labels = printed()
    ours = {name: (kind, labels[name]) for name, kind in kinds.items() if name.startswith("nomadserve_")}
    assert documented() == ours


def test_it_names_the_series_of_the_process() -> None:
    kinds, _ = printed()
    assert set(re.findall(r"`(process_\w+)`", DOCUMENT)) == {name for name in kinds if name.startswith("process_")}


@pytest.mark.parametrize("word", [*OUTCOMES, *REFUSALS, *Stages.WORDS])
def test_it_explains_every_word_of_a_label(word: str) -> None:
    assert f"`{word}`" in DOCUMENT


def test_its_queries_use_series_that_exist() -> None:
    kinds, _ = printed()
    queries = DOCUMENT.partition("## What to ask")[2]
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"nomadserve_\w+", queries)}
    assert used
    assert used <= set(kinds)
