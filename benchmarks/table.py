"""Results as text: one table for each model and form of bodies, and the aims. Pure."""

from collections.abc import Mapping, Sequence

from benchmarks.aims import Aim
from benchmarks.catalogue import OWN, PEERS
from benchmarks.results import Key, Median

CPU_AT = 64
NOTHING = "–"


def tables(medians: Mapping[Key, Median]) -> str:
    """All that was measured, in Markdown."""
    kinds = dict.fromkeys((key.model, key.form) for key in medians if key.load == "steady" and key.form)
    parts = [_steady(medians, model, form) for model, form in kinds]
    return "\n\n".join([*parts, *_bare_engine(medians), *_overload(medians)])


def aims_table(aims: Sequence[Aim]) -> str:
    """Every aim with its figure."""
    rows = [
        [aim.name, f"{'≤' if aim.at_most else '≥'} {aim.wanted:g}", _number(aim.found), aim.verdict] for aim in aims
    ]
    return _table("Aims", ["aim", "wanted", "found", ""], rows)


def _steady(medians: Mapping[Key, Median], model: str, form: str) -> str:
    counts = sorted({key.connections for key in medians if key[1:4] == (model, form, "steady")})
    peers = dict.fromkeys(key.peer for key in medians if key[1:4] == (model, form, "steady"))
    # CPU and memory at 64 connections, or the nearest that was measured.
    at = min(counts, key=lambda count: abs(count - CPU_AT))
    heads = [f"requests/s at {count}" for count in counts] + [f"p99 ms at {count}" for count in counts]
    heads = ["server", *heads, f"CPU µs at {at}", "memory MB", "wrong"]
    rows = []
    for peer in peers:
        found = [medians.get(Key(peer, model, form, "steady", count)) for count in counts]
        own = [medians.get(Key(OWN, model, form, "steady", count)) for count in counts]
        rates = [_rate(each, best) for each, best in zip(found, own, strict=True)]
        rows.append(
            [
                _title(peer),
                *rates,
                *(_number(each.p99_ms if each else None) for each in found),
                *_costs(found[counts.index(at)], found),
            ]
        )
    return _table(f"{model}, {form}; in brackets: nomadserve's figure as a multiple of this one's", heads, rows)


def _rate(found: Median | None, own: Median | None) -> str:
    if found is None:
        return NOTHING
    times = f" ({own.answered / found.answered:.2f})" if own and own is not found and found.answered else ""
    return f"{found.answered:,.0f}{times}"


def _costs(at: Median | None, found: Sequence[Median | None]) -> list[str]:
    wrong = sum(each.wrong for each in found if each)
    return [f"{at.cpu_us:,.0f}" if at else NOTHING, f"{at.memory_mb:,.0f}" if at else NOTHING, str(wrong)]


def _bare_engine(medians: Mapping[Key, Median]) -> list[str]:
    rows = [
        [key.model, str(key.connections), f"{found.answered:,.0f}"] for key, found in medians.items() if not key.form
    ]
    return [_table("Limit: bare ONNX Runtime, one thread", ["model", "rows a batch", "rows/s"], rows)] if rows else []


def _overload(medians: Mapping[Key, Median]) -> list[str]:
    heads = [
        "server",
        "model, body",
        "load",
        "good replies/s",
        "refused/s",
        "share of its capacity",
        "p99 ms of good ones",
    ]
    rows = []
    for key, found in medians.items():
        if key.load == "steady":
            continue
        share = found.extra.get("goodput_share")
        steady = medians.get(Key(key.peer, key.model, key.form, "steady", 256))
        if share is None and steady and steady.answered:
            share = found.answered / steady.answered
        p99 = found.p99_ms if key.load == "flood" else None  # wrk can't tell good replies from refusals
        load = f"{key.connections:,} connections retry at once" if key.load == "overload" else "open loop, 4 × capacity"
        figures = [f"{found.answered:,.0f}", f"{found.refused:,.0f}", _number(share), _number(p99)]
        rows.append([_title(key.peer), f"{key.model}, {key.form}", load, *figures])
    return [_table("Overload, queue limit 128", heads, rows)] if rows else []


def _title(peer: str) -> str:
    return PEERS[peer].title if peer in PEERS else peer


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [_line(heads, widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    return "\n".join([f"### {title}", "", *lines, *(_line(row, widths) for row in rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
