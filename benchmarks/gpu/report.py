"""What was measured, as text, and what it says about the aims. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.gpu.bare import Bare
from benchmarks.gpu.correctness import Difference
from benchmarks.gpu.serving import Served

RATE_AIM, CPU_AIM_US = 0.95, 60.0


@dataclass(frozen=True)
class Line:
    """One batch size of the bare engine.

    Attributes:
        plain: without CUDA graphs.  pageable: with them, from memory that is not page-locked.
    """

    rows: int
    graphs: Bare
    plain: Bare
    pageable: Bare


@dataclass(frozen=True)
class Result:
    """All that was measured of one network in one precision.

    Attributes:
        served: rows of a request → what clients got.
    """

    network: str
    precision: str
    difference: Difference
    lines: tuple[Line, ...]
    served: dict[int, Served]

    @property
    def best(self) -> float:
        """What the bare engine gives at most, rows per second."""
        return max(line.graphs.rows_per_s for line in self.lines)


def text(results: Sequence[Result], *, machine: str) -> str:
    """Everything, in Markdown."""
    return "\n\n".join([machine, *(_of(result) for result in results), _aims(results)])


def _of(result: Result) -> str:
    difference = result.difference
    rightness = "right" if difference.is_right else "WRONG"
    head = f"### {result.network}, {result.precision}: {rightness}"
    off = f"Off by {difference.found:.2g} standard deviations; {difference.allowed:.2g} are allowed. The bare engine:"
    bare = [
        [
            str(line.rows),
            *(f"{each.rows_per_s:,.0f}" for each in (line.graphs, line.plain, line.pageable)),
            *(f"{each.batch_ms:.3f}" for each in (line.graphs, line.plain, line.pageable)),
        ]
        for line in result.lines
    ]
    heads = ["rows a batch", "rows/s", "without graphs", "pageable", "ms alone", "without graphs", "pageable"]
    served = [
        [
            str(rows),
            f"{each.rows_per_s:,.0f}",
            f"{each.rows_per_s / result.best:.0%}",
            f"{each.p50_ms:.2f}",
            f"{each.p99_ms:.2f}",
            f"{each.cpu_us:.0f}",
            f"{each.batch_rows:.1f}",
            str(each.failed),
        ]
        for rows, each in result.served.items()
    ]
    served_heads = ["rows a request", "rows/s", "of the bare engine", "p50 ms", "p99 ms", "CPU µs a request"]
    whole = _table([*served_heads, "rows a batch", "failed"], served)
    return "\n\n".join([head, off, _table(heads, bare), "The whole server:", whole])


def _aims(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        if (result.network, result.precision) != ("resnet50", "fp16"):
            continue
        share = max(each.rows_per_s for each in result.served.values()) / result.best
        cpu_us = min(each.cpu_us for each in result.served.values())
        rows.append(
            ["share of the bare engine, ResNet-50 FP16", f"≥ {RATE_AIM}", f"{share:.3f}", _met(share >= RATE_AIM)]
        )
        rows.append(["CPU µs a request", f"≤ {CPU_AIM_US:.0f}", f"{cpu_us:.0f}", _met(cpu_us <= CPU_AIM_US)])
    return "### Aims\n\n" + (_table(["aim", "wanted", "found", ""], rows) if rows else "not measured")


def _met(is_met: bool) -> str:
    return "met" if is_met else "NOT MET"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
