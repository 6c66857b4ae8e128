"""`nomadserve bench`."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nomadserve.cli import output
from nomadserve.cli.quantities import numbers, percent, time
from nomadserve.cli.report_file import report_options, write_report
from nomadserve.operations.bench import BenchDone, Limits, Report, StepMeasured, StepMoves, Wishes, bench
from nomadserve.operations.bench.knee import Step, Verdict
from nomadserve.operations.bench.page import bench_page
from nomadserve.operations.bench.ui import bench_ui
from nomadserve.operations.events import Event

# Options of the search for the knee, which `--ui` leaves to the person who watches.
OF_THE_SEARCH = ("p99", "errors", "step", "precision", "rate_max", "threads", "report_file", "as_json")
COLUMNS = ("offered/s", "answered/s", "p50 ms", "p99 ms", "rows/batch", "refused", "failed", "cores", "late ms", "")


@click.command()
@click.argument("target")
@click.option("--version", help="Of a service: the version whose replica is measured.")
@click.option("--through-gateway", is_flag=True, help="Ask through the gateway; measures all replicas of the version.")
@click.option("--model", help="Which model, where there are several.")
@click.option("--data", metavar="@FILE", help="Real bodies: one, a list, or one to a line. Made up if left away.")
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="Rows of each made-up request.")
@click.option("--p99", type=time, default="100ms", show_default=True, help="The limit of the 99th percentile.")
@click.option("--errors", type=percent, default="1%", show_default=True, help="The limit of refused and failed.")
@click.option("--step", type=time, default="5s", show_default=True, help="How long each rate is measured.")
@click.option("--precision", type=percent, default="5%", show_default=True, help="How close to find the knee.")
@click.option("--start", type=click.FloatRange(0.1), help="First rate, requests/s; by the latency if left away.")
@click.option("--rate-max", type=click.FloatRange(0.1), default=100_000, show_default=True, help="Never offer more.")
@click.option("--threads", type=numbers, help="Of a model file: numbers of threads to compare: 1,2,4.")
@click.option("--engine", help="Of a model file: onnxruntime (default), or fake.")
@click.option("--max-batch", type=int, help="Of a model file: rows of the largest batch.")
@click.option("--queue-max", type=int, help="Of a model file: rows that may wait.")
@click.option("--max-delay", help="Of a model file: how long an idle engine waits, such as 2ms.")
@report_options("bench.html")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--ui", is_flag=True, help="Instead of all that, Locust's web page on the same replica, until Ctrl-C.")
@click.option("--ui-port", type=click.IntRange(1, 65535), help="Port of that page, on 127.0.0.1; a free one otherwise.")
@click.pass_context
def command(
    context: click.Context,
    /,
    target: str,
    report_file: str,
    as_json: bool,
    ui: bool,
    ui_port: int | None,
    **options: Any,
) -> int:
    r"""Find what one replica takes: load in steps until its latency or its errors pass a limit.

    TARGET is a model file, which is served here for the test, the address of a running `nomadserve serve`, or a
    service, whose replica is found by Consul's DNS. Exits with 1 where no rate passed.

    \b
        nomadserve bench models/digits-v2.onnx --data @request.json
        nomadserve bench http://127.0.0.1:8000 --p99 50ms
        nomadserve bench digits --version v1
        nomadserve bench digits --version v1 --ui

    The load is open: requests leave by the clock, whatever the replies do. The load of `--ui` is closed: each of
    Locust's users waits for its reply before it sends again, so a replica that stalls slows its own test down, and
    latencies look better than clients would find them. Watch with it; take numbers for the file from the search.
    """
    with ended_as_by_ctrl_c():
        if ui:
            watch_page(context, target, ui_port, wishes_from(options))
            return 0
        report = watch(bench(target, wishes_from(options)))
    if as_json:
        output.emit_json(report)
    else:
        for line in report_lines(report):
            output.emit(line)
    write_report(report_file, lambda: bench_page(report))
    for doubt in report.doubts:
        output.warning(doubt)
    return 0 if report.knee else 1


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM, and the end of the terminal, end what was started here too, as Ctrl-C does."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:  # `nohup` means what it says
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watch_page(context: click.Context, target: str, port: int | None, wishes: Wishes) -> None:
    """Locust's page until Ctrl-C or SIGTERM, which are its ordinary end."""
    for name in OF_THE_SEARCH:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            flag = next(option.opts[0] for option in context.command.params if option.name == name)
            raise click.UsageError(f"`{flag}` and `--ui` exclude one another: the page searches for nothing")
    for event in bench_ui(target, wishes, port=port):
        output.say(str(event))


def wishes_from(options: dict[str, Any]) -> Wishes:
    """The options as what the operation takes."""
    serve = {"engine": "engine", "max-batch": "max_batch", "queue-max": "queue_max", "max-delay": "max_delay"}
    data = options["data"]
    return Wishes(
        limits=Limits(p99_s=float(options["p99"]), error_share=options["errors"]),
        version=options["version"],
        through_gateway=options["through_gateway"],
        model=options["model"],
        data=None if data is None else _read(data),
        data_origin=Path((data or "").removeprefix("@")).name,
        rows=options["rows"],
        step_s=float(options["step"]),
        precision=options["precision"],
        start=options["start"],
        rate_max=options["rate_max"],
        serve={flag: options[name] for flag, name in serve.items() if options[name] is not None},
        threads=options["threads"] or (),
    )


def watch(events: Iterable[Event]) -> Report:
    """Show how it goes: a table that grows, on a terminal; elsewhere a line for each step."""
    steps: list[Step] = []
    console = output.talk()
    with Live(console=console, transient=True, refresh_per_second=4, auto_refresh=False) as live:
        for event in events:
            if isinstance(event, BenchDone):
                return event.report
            if isinstance(event, StepMeasured):
                steps.append(event.step)
            elif not isinstance(event, StepMoves):
                steps.clear()
                output.say(str(event))
            if console.is_terminal:
                moving = Text(str(event) if isinstance(event, StepMoves) else "", style="cyan")
                live.update(Group(steps_table(steps), moving), refresh=True)
            elif isinstance(event, StepMeasured):
                output.say(str(event))
    raise AssertionError("the report comes last")


def steps_table(steps: Iterable[Step]) -> Table:
    """The steps so far."""
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for column in table.columns[:-1]:
        column.justify = "right"
    for step in steps:
        table.add_row(*cells(step), style="" if step.verdict is Verdict.good else "yellow")
    return table


def report_lines(report: Report) -> list[str]:
    """The result for people: every step of the best run, the comparison, the knee, the proposal."""
    rows = [COLUMNS, *(cells(step) for step in report.best.in_order)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(report.runs) > 1:
        lines += ["", *(f"threads {run.threads}: {_knee_words(run.knee)}" for run in report.runs)]
    lines += ["", str(BenchDone(report=report))]
    if report.proposal:
        lines += ["", report.proposal.hcl]
    if report.best.startup_s is not None and report.best.knee:
        lines += ["", f"nomadserve simulate … --capacity {report.best.knee:g} --startup {report.best.startup_s:g}s"]
    return lines


def cells(step: Step) -> tuple[str, ...]:
    """One step as the cells of a table; a dash for what could not be measured."""
    outcome = step.outcome
    return (
        f"{outcome.rate:g}",
        f"{outcome.throughput:.1f}",
        _number(outcome.latency_ms.get("p50")),
        _number(outcome.latency_ms.get("p99")),
        _number(step.batch_rows),
        str(outcome.refused),
        str(outcome.failed),
        _number(step.cpu_cores),
        _number(outcome.lag_ms.get("p99")),
        "" if step.verdict is Verdict.good else str(step.verdict),
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _knee_words(knee: float | None) -> str:
    return f"{knee:g} requests/s" if knee else "no rate passed"


def _read(data: str) -> bytes:
    file = Path(data.removeprefix("@"))
    try:
        return file.read_bytes()
    except OSError as error:
        raise click.UsageError(f"can't read `{file}`: {error.strerror}") from error
