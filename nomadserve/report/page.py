"""Templates → one HTML file. The only module here that knows Jinja2."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nomadserve.report.scales import plain

TEMPLATES = Path(__file__).parent / "templates"


def page(template: str, **values: Any) -> str:
    """The page that `templates/TEMPLATE` makes of the values; all of them are escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=plain, ms=_milliseconds, clock=hours)
    return environment.get_template(template).render(**values)


def _milliseconds(value: float | None) -> str:
    """Three digits are what such a measurement is worth."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def hours(seconds: float) -> str:
    """A length of time as a clock shows it: `0:01:30`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
