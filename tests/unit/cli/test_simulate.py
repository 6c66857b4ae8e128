import json
from pathlib import Path

import pytest

from nomadserve.cli import run

SERVICE = """
service "digits" {
  model "digits" {
    source = "https://models.example/digits.onnx"
  }
  scaling {
    min = 1
    max = 8
    target "requests_per_second" {
      value = 10
    }
  }
}
"""
NEEDED = ("--capacity", "12", "--startup", "8s")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a service file and a trace lie."""
    (tmp_path / "service.hcl.j2").write_text(SERVICE)
    (tmp_path / "trace.csv").write_text("seconds,requests_per_second\n0,5\n60,45\n600,45\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_changes_sums_and_a_page_come_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "service.hcl.j2", "--trace", "trace.csv", *NEEDED]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " → " in lines[0]
    assert lines[0].endswith("requests_per_second")
    assert any(line.startswith("refused") for line in lines)
    page = (folder / "simulation.html").read_text()
    assert page.count("<figure>") == 4
    assert "trace.csv" in page


def test_json_has_every_change_and_the_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "service.hcl.j2", "--trace", "trace.csv", *NEEDED, "--no-report", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["changes"][0]["before"] == 1
    assert result["moments"][0] == {
        "at_s": 0.0, "offered": 5.0, "refused": 0.0, "count": 1, "ready": 1.0, "wait_s": 0.0
    }  # fmt: skip
    assert not (folder / "simulation.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (NEEDED, "give the traffic by"),
        ((*NEEDED, "--trace", "trace.csv", "--prometheus", "http://127.0.0.1:1"), "give the traffic by"),
        ((*NEEDED, "--trace", "trace.csv", "--placement", "9s"), "can't be longer"),
        (("--trace", "trace.csv", "--startup", "8s"), "--capacity"),
        ((*NEEDED, "--trace", "service.hcl.j2"), "no column `seconds`"),
    ],
)
def test_what_can_not_be_simulated_is_refused(
    folder: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["simulate", "service.hcl.j2", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_no_prometheus_is_an_error_with_its_address(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "service.hcl.j2", *NEEDED, "--prometheus", "http://127.0.0.1:1"]) == 1
    assert "http://127.0.0.1:1" in capsys.readouterr().err
