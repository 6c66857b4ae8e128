"""`nomadserve simulate`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from nomadserve.cli import output
from nomadserve.cli.quantities import time
from nomadserve.cli.report_file import report_options, write_report
from nomadserve.cli.service_file import read_service, service_file_options
from nomadserve.errors import NomadserveError
from nomadserve.operations.simulate import Assumptions, Result, Trace, simulate
from nomadserve.operations.simulate.page import simulation_page
from nomadserve.operations.simulate.trace import A_MONDAY, from_csv, from_history
from nomadserve.prometheus_api import PrometheusApi
from nomadserve.report import hours

MOMENT_FORMAT = "%Y-%m-%dT%H:%M"


@click.command()
@service_file_options
@click.option(
    "--trace",
    "trace_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Traffic: a CSV file with the columns seconds and requests_per_second.",
)
@click.option("--prometheus", help="Traffic: what this Prometheus remembers, such as http://127.0.0.1:9090.")
@click.option("--service", "of_service", help="With --prometheus: whose traffic; the file's service if left away.")
@click.option("--since", type=time, default="24h", show_default=True, help="With --prometheus: how much of the past.")
@click.option("--capacity", type=click.FloatRange(0.001), required=True, help="Requests/s of a replica; see `bench`.")
@click.option("--startup", type=time, required=True, help="From the decision to a replica that answers, such as 8s.")
@click.option("--placement", type=time, default="1s", show_default=True, help="Of that: until Nomad says running.")
@click.option("--latency", type=time, default="20ms", show_default=True, help="Of a request when nothing waits.")
@click.option("--scrape", type=time, default="5s", show_default=True, help="How often Prometheus looks.")
@click.option("--replicas", type=click.IntRange(0), help="At the start; as the first rate asks if left away.")
@click.option(
    "--starts-at",
    type=click.DateTime([MOMENT_FORMAT]),
    help="UTC, when the trace begins, for schedules; a Monday, 00:00 if left away.",
)
@report_options("simulation.html")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    file: Path, variables: tuple[str, ...], var_files: tuple[Path, ...], report_file: str, **options: Any
) -> None:
    r"""Replay traffic against the scaling of FILE: replicas, refused requests, waits and hours. Needs no cluster.

    \b
        nomadserve simulate service.hcl.j2 --trace day.csv --capacity 50 --startup 8s
        nomadserve simulate service.hcl.j2 --prometheus http://127.0.0.1:9090 --capacity 50 --startup 8s
    """
    service = read_service(file, variables, var_files)
    trace = trace_from(options, service.name)
    result = simulate(service, trace, assumptions_from(options))
    if options["as_json"]:
        output.emit_json(result)
    else:
        for line in result_lines(result):
            output.emit(line)
    write_report(report_file, lambda: simulation_page(result))
    for note in result.notes:
        output.warning(note)


def trace_from(options: dict[str, Any], service: str) -> Trace:
    """The traffic that the options name: a file or a Prometheus."""
    file, prometheus = options["trace_file"], options["prometheus"]
    if (file is None) == (prometheus is None):
        raise click.UsageError("give the traffic by `--trace FILE` or by `--prometheus URL`")
    if prometheus is not None:
        name = options["of_service"] or service
        return from_history(PrometheusApi(prometheus), name, end=datetime.now(UTC), seconds=options["since"])
    starts_at = options["starts_at"].replace(tzinfo=UTC) if options["starts_at"] else A_MONDAY
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise NomadserveError(f"can't read `{file}`: {error}", hint="a trace is a CSV file in UTF-8") from error
    return from_csv(text, origin=file.name, starts_at=starts_at)


def assumptions_from(options: dict[str, Any]) -> Assumptions:
    """What the file can't say."""
    if options["placement"] > options["startup"]:
        raise click.UsageError("`--placement` is a part of `--startup`, and can't be longer")
    return Assumptions(
        capacity=options["capacity"],
        startup_s=float(options["startup"]),
        placement_s=float(options["placement"]),
        latency_s=float(options["latency"]),
        scrape_s=float(options["scrape"]),
        replicas=options["replicas"],
    )


def result_lines(result: Result) -> list[str]:
    """The result for people: every change of the count, then the sums."""
    lines = [f"{hours(change.at_s):>9}  {change.before} → {change.after}  {change.why}" for change in result.changes]
    wait = "nothing was answered"
    if result.wait_p99_s is not None and result.wait_p50_s is not None:
        wait = f"p50 {result.wait_p50_s * 1e3:.0f} ms, p99 {result.wait_p99_s * 1e3:.0f} ms"
    facts = {
        "time": hours(result.seconds),
        "requests": f"{result.requests:,.0f}",
        "refused": f"{result.refused:,.0f} ({result.refused_share:.2%}), at most {result.refused_longest_s:g} s long",
        "wait": wait,
        "replicas": f"{result.replicas_mean:.2f} on average, {result.replicas_max} at most",
        "replica hours": f"{result.replica_hours:.2f}, {result.hours_at_max:.2f} if always at `max`",
    }
    if result.gpu_hours is not None:
        facts["GPU hours"] = f"{result.gpu_hours:.2f}"
    return [*lines, *([""] if lines else []), *(f"{name:<14} {value}" for name, value in facts.items())]
