"""Jobs as they are rendered, by golden files.

To renew them after a wanted change: `NOMADSERVE_UPDATE_GOLDEN=1 pytest tests/unit/test_render.py`, then read the diff.
"""

import os
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import hcl2
import pytest

from nomadserve import render, spec
from nomadserve.language import load_service
from nomadserve.render import jobs_dir, quote, render_build_job, render_job

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.name.removesuffix(".hcl.j2") for path in GOLDEN.glob("*.hcl.j2"))


def rendered(name: str) -> str:
    return render_job(load_service(GOLDEN / f"{name}.hcl.j2", {"version": "v2"}))


def comparable(job: str) -> str:
    """Without what differs between machines and releases."""
    return job.replace(str(GOLDEN), "/srv").replace(f'"{version("nomadserve")}"', '"{nomadserve}"')


@pytest.mark.parametrize("name", NAMES)
def test_a_service_file_becomes_exactly_this_job(name: str) -> None:
    golden = GOLDEN / f"{name}.nomad.hcl"
    job = comparable(rendered(name))
    if "NOMADSERVE_UPDATE_GOLDEN" in os.environ:
        golden.write_text(job, encoding="utf-8")
    assert job == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["gpu", "tensorrt", "tensorrt_exec"])
def test_what_builds_ahead_is_exactly_this_job(name: str) -> None:
    golden = GOLDEN / f"{name}.build.hcl"
    job = comparable(render_build_job(load_service(GOLDEN / f"{name}.hcl.j2", {"version": "v2"})))
    if "NOMADSERVE_UPDATE_GOLDEN" in os.environ:
        golden.write_text(job, encoding="utf-8")
    assert job == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_every_job_is_hcl(name: str) -> None:
    assert "job" in hcl2.loads(rendered(name))


def test_every_scaling_target_has_a_template_and_a_golden_rendering() -> None:
    tags = {target.__struct_config__.tag for target in get_args(spec.AnyTarget)}
    assert tags == {"requests_per_second", "in_flight", "backlog_seconds", "cpu", "gpu"}
    for tag in tags:
        assert (jobs_dir() / "targets" / f"{tag}.hcl.j2").is_file()
        assert f'check "{tag}"' in rendered("scaling") + rendered("gpu_scaling")


def test_the_count_begins_at_the_least_that_the_file_asks_for() -> None:
    assert "count = 2\n" in rendered("scaling")
    assert "count = 3\n" in rendered("gpu")


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("plain", '"plain"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("two\nlines\tand a tab", r'"two\nlines\tand a tab"'),
        ("bell\x07", r'"bell\u0007"'),
        ("${job}", '"$${job}"'),
        ("$${job}", '"$$${job}"'),
        ("%{ if x }", '"%%{ if x }"'),
        ("100 % of $5", '"100 % of $5"'),
        ("${", '"$${"'),
        ("été 😀", '"été 😀"'),
    ],
)
def test_nothing_in_a_quoted_text_is_evaluated(text: str, literal: str) -> None:
    assert quote(text) == literal


def test_an_injected_line_stays_inside_of_its_text(tmp_path: Path) -> None:
    file = tmp_path / "service.hcl.j2"
    file.write_text(
        'service "digits" {\n  env = {\n    A = "x\\"\\n  driver = \\"docker\\""\n  }\n'
        '  model "digits" {\n    source = "https://models.example/digits.onnx"\n  }\n}\n'
    )
    assert r'A                          = "x\"\n  driver = \"docker\""' in render_job(load_service(file, {}))


def test_a_schedule_follows_the_offset_that_its_zone_has_today(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = spec.Schedule(name="day", start="30 8 * * 1-5", end="0 0 * * 1-5", min=2, timezone="Europe/Berlin")
    for month, start, end in ((1, "30 7 * * 1-5", "0 23 * * 0-4"), (7, "30 6 * * 1-5", "0 22 * * 0-4")):
        monkeypatch.setattr(render, "datetime", _clock(datetime(2030, month, 15, tzinfo=UTC)))
        assert render._in_utc(schedule, "start") == start
        assert render._in_utc(schedule, "end") == end


def _clock(moment: datetime) -> type[datetime]:
    class Fixed(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return moment

    return Fixed


def scaled(folder: Path, scaling: str) -> str:
    file = folder / "service.hcl.j2"
    model = 'model "digits" {\n source = "https://models.example/digits.onnx"\n }'
    file.write_text(f'service "digits" {{\n {model}\n scaling {{\n min = 2\n max = 4\n {scaling}\n }}\n}}\n')
    return render_job(load_service(file, {}))


NIGHTLY = 'schedule "night" {\n start = "0 1 * * *"\n end = "0 3 * * *"\n min = 3\n }'


def test_a_policy_of_schedules_alone_goes_back_to_its_minimum(tmp_path: Path) -> None:
    assert 'check "min" {\n          strategy "fixed-value" {\n            value = 2\n' in scaled(tmp_path, NIGHTLY)
    with_target = scaled(tmp_path, NIGHTLY + '\n target "in_flight" {\n value = 4\n }')
    assert 'check "min"' not in with_target


def test_the_autoscaler_itself_rests_shortly_after_any_change(tmp_path: Path) -> None:
    job = scaled(tmp_path, 'cooldown = "15m"\n target "in_flight" {\n value = 4\n }')
    assert 'cooldown             = "10s"\n        cooldown_on_scale_up = "10s"\n' in job
    assert "[900s:5s]" in job
