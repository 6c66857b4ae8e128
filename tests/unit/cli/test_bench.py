import pytest

from nomadserve.cli import run
from nomadserve.cli.bench import report_lines
from nomadserve.operations.bench.knee import Limits, Verdict
from nomadserve.operations.bench.page import bench_page
from nomadserve.operations.bench.proposal import propose
from nomadserve.operations.bench.report import Report, Run, best_first
from nomadserve.operations.bench.ui import users_proposed
from tests.unit.operations.bench.outcomes import step

LIMITS = Limits(p99_s=0.1, error_share=0.01)
STEPS = [step(100, batch_rows=2), step(200, Verdict.errors), step(141, batch_rows=4)]


def report(*runs: Run, doubts: list[str] | None = None) -> Report:
    ordered = best_first(list(runs) or [measured(None, 141)])
    return Report(
        target="digits.onnx",
        subject="digits.onnx, served here",
        model="digits",
        payload="made up",
        rows=1,
        limits=LIMITS,
        machine="2 cores",
        measured_at="2025-01-01 00:00 UTC",
        nomadserve="0.1.0",
        runs=ordered,
        proposal=propose(ordered[0].steps, LIMITS, rows=1, batch_rows_max=8, threads=ordered[0].threads),
        doubts=doubts or [],
    )


def measured(threads: int | None, knee: float | None) -> Run:
    steps = STEPS if knee else [step(10, Verdict.slow)]
    return Run(threads=threads, knee=knee, startup_s=1.5, single_ms=4, steps=steps)


def test_the_result_is_a_table_by_rate_the_knee_and_the_lines_for_the_file() -> None:
    lines = report_lines(report())
    assert [line.split()[0] for line in lines[1:4]] == ["100", "141", "200"]
    assert lines[3].endswith("errors")
    assert "the knee: 141 requests/s, p99 20.0 ms" in lines
    assert "    value = 100" in "\n".join(lines).splitlines()
    assert lines[-1] == "nomadserve simulate … --capacity 141 --startup 1.5s"


def test_compared_threads_are_listed_best_first() -> None:
    lines = report_lines(report(measured(1, 100), measured(2, 141), measured(4, 60)))
    assert [line for line in lines if line.startswith("threads ")] == [
        "threads 2: 141 requests/s",
        "threads 1: 100 requests/s",
        "threads 4: 60 requests/s",
    ]


def test_of_equally_good_runs_the_one_with_fewer_threads_is_best() -> None:
    assert best_first([measured(4, 102), measured(1, 100), measured(2, 101)])[0].threads == 1


def test_a_report_without_a_knee_says_so() -> None:
    nothing = report(measured(None, None))
    assert "no rate passed" in report_lines(nothing)
    assert "no rate passed the limits" in bench_page(nothing)


def test_the_page_shows_doubts_and_marks_the_knee() -> None:
    page = bench_page(report(doubts=["the load generator itself was late"]))
    assert "The load generator itself was late." in page
    assert page.count('<tr class="knee">') == 1
    assert page.count("<figure>") == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digits"], "which version of `digits`?"),
        (["nowhere.onnx"], "there is no file `nowhere.onnx`"),
        (["https://127.0.0.1:1"], "can't be measured"),
        (["http://127.0.0.1:1/path"], "can't be measured"),
        (["digits", "--p99", "100"], "write it as `100s`"),
        (["digits", "--errors", "1"], "write it as `1%`"),
        (["digits", "--threads", "1,two"], "write it as `1,2,4`"),
        (["digits", "--data", "@nowhere.json"], "can't read `nowhere.json`"),
    ],
)
def test_what_can_not_be_measured_is_refused_with_the_way_out(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "hint: " in error


def test_an_address_where_nothing_answers_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "http://127.0.0.1:1", "--no-report"]) == 1
    assert "nothing answers at http://127.0.0.1:1" in capsys.readouterr().err


def test_the_page_needs_locust_and_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert run(["bench", "http://127.0.0.1:9", "--ui"]) == 2
    said = capsys.readouterr().err
    assert "error: `--ui` shows the page of Locust, which is not installed\n" in said
    assert "-m pip install locust`, or have a `locust` of its own on PATH: `pipx install locust`" in said


@pytest.mark.parametrize("flags", [["--p99", "50ms"], ["--json"], ["--no-report"], ["--threads", "1,2"]])
def test_the_page_takes_no_options_of_the_search(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "http://127.0.0.1:9", "--ui", *flags]) == 2
    assert "and `--ui` exclude one another: the page searches for nothing" in capsys.readouterr().err


def test_the_page_proposes_the_first_rate_of_the_search_as_users_of_one_request_a_second() -> None:
    assert [users_proposed(start) for start in (0.2, 41.7, 20_000)] == [1, 42, 500]
