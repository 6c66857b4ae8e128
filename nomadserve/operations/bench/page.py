"""The report as an HTML page: four charts by offered load, the proposal, every step."""

from collections.abc import Callable

from nomadserve.operations.bench.knee import Step
from nomadserve.operations.bench.proposal import TARGET_SHARE
from nomadserve.operations.bench.report import Report
from nomadserve.report import Chart, Line, Mark, page

OFFERED = "offered, requests/s"


def bench_page(report: Report) -> str:
    """The whole page, self-contained."""
    return page("bench.html.j2", report=report, charts=charts(report), target_share=TARGET_SHARE)


def charts(report: Report) -> list[Chart]:
    """Throughput, latency, batch size and refusals, all by offered load."""
    knee = [Mark("x", report.knee.rate, "knee")] if report.knee else []
    limit = Mark("y", report.limits.p99_s * 1e3, "limit of p99")
    highest = max((step.rate for step in report.best.steps), default=0.0)

    def line(name: str, value: Callable[[Step], float | None], colour: str = "a") -> Line:
        return _line(report, name, value, colour)

    return [
        Chart(
            "Answered",
            OFFERED,
            "requests/s",
            [
                Line("all that is offered", [(0.0, 0.0), (highest, highest)], colour="faint"),
                line("answered", lambda step: step.outcome.throughput),
            ],
            marks=knee,
        ),
        Chart(
            "Latency of good answers",
            OFFERED,
            "ms, logarithmic",
            [
                line("p50", lambda step: step.outcome.latency_ms.get("p50")),
                line("p99", lambda step: step.outcome.latency_ms.get("p99"), "b"),
            ],
            marks=[*knee, limit],
            y="logarithmic",
        ),
        Chart(
            "Rows in a batch",
            OFFERED,
            "rows, mean",
            [line("batch", lambda step: step.batch_rows)],
            marks=knee,
        ),
        Chart(
            "Refused and failed",
            OFFERED,
            "% of requests",
            [
                line("refused (503)", lambda step: _percent(step, step.outcome.refused)),
                line("failed", lambda step: _percent(step, step.outcome.failed), "b"),
            ],
            marks=knee,
        ),
    ]


def _line(report: Report, name: str, value: Callable[[Step], float | None], colour: str) -> Line:
    found = [(step.rate, value(step)) for step in report.best.in_order]
    points = [(rate, number) for rate, number in found if number is not None]
    return Line(name, points, colour="b" if colour == "b" else "a")


def _percent(step: Step, count: int) -> float:
    return 100 * count / step.outcome.sent if step.outcome.sent else 0.0
