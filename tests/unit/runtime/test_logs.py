"""The log: text for people, JSON for machines, to stderr or to a file."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nomadserve_runtime import logs
from nomadserve_runtime.errors import WrongSetting
from nomadserve_runtime.logs import access_log, fields, start_log

log = logging.getLogger("nomadserve.test")


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("nomadserve", "nomadserve.access")}
    root.handlers.clear()
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


def start(**changes: Any) -> None:
    start_log(**({"level": "info", "form": "text", "path": "", "is_access_logged": False} | changes))


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    start()
    log.info("serving %s", "digits", extra=fields(model="m", empty="", seconds=0.5))
    log.debug("too much")
    assert capsys.readouterr().err.partition(" INFO ")[2] == "   nomadserve.test: serving digits model=m seconds=0.5\n"


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    start(form="json")
    log.info("serving %s", "dígits", extra=fields(model="m", status=200))
    content = json.loads(capsys.readouterr().err)
    assert content.pop("time").endswith("+00:00")
    assert content == {
        "level": "info",
        "logger": "nomadserve.test",
        "message": "serving dígits",
        "model": "m",
        "status": 200,
    }


def test_an_exception_stays_on_the_line_of_its_json(capsys: pytest.CaptureFixture[str]) -> None:
    start(form="json")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["exception"].endswith("ValueError: two\nlines")


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_client_says_can_not_forge_a_line(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    start(form=form)
    log.info("asked", extra=fields(request_id='a"\n2026-01-01 ERROR forged'))
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(("is_logged", "lines"), [(False, 0), (True, 1)])
def test_requests_are_logged_only_where_that_was_asked_for(
    is_logged: bool, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    start(level="debug", is_access_logged=is_logged)
    access_log.info("200 ok")
    assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_file_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_NBYTES_MAX", 1000)
    path = tmp_path / "serve.log"
    start(path=str(path))
    for number in range(200):
        log.info("line %d", number)
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["serve.log", *(f"serve.log.{number}" for number in range(1, logs.FILES_KEPT + 1))]
    assert all(file.stat().st_size <= 1000 for file in tmp_path.iterdir())
    assert path.read_text().splitlines()[-1].endswith("line 199")


def test_a_file_that_can_not_be_written_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(WrongSetting) as caught:
        start(path=str(tmp_path / "none" / "serve.log"))
    assert caught.value.message == f"can't write the log to `{tmp_path}/none/serve.log`: No such file or directory"
    assert caught.value.hint == "check `NOMADSERVE_LOG_FILE`, or leave it away"
