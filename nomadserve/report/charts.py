"""Lines over a common axis → the geometry of a chart, which `templates/chart.svg.j2` draws."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Literal

from nomadserve.report import scales
from nomadserve.report.scales import Scale

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 16, 48  # room for labels
DOTS_MAX = 40  # more points than that are a curve, and its dots a smear

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """Points that belong together.

    Attributes:
        style: how it is drawn; `step` holds every value until the next one.
        colour: a class of the style sheet: `a`, `b`, `c`, or `faint` for what is only a comparison.
    """

    name: str
    points: Sequence[Point]
    colour: Literal["a", "b", "c", "faint"] = "a"
    style: Literal["line", "step"] = "line"


@dataclass(frozen=True, slots=True)
class Mark:
    """A value that the chart is read against: across (`y`) or upright (`x`)."""

    axis: Literal["x", "y"]
    value: float
    name: str


@dataclass(frozen=True)
class Chart:
    """Lines with their axes.

    Attributes:
        y: scale of the values.  x: `clock` for seconds.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    marks: Sequence[Mark] = ()
    y: Literal["linear", "logarithmic"] = "linear"
    x: Literal["linear", "clock"] = "linear"
    note: str = ""
    width: int = field(default=WIDTH, init=False)
    height: int = field(default=HEIGHT, init=False)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(line.points for line in self.lines)

    @property
    def x_scale(self) -> Scale:
        """The lower axis."""
        values = [x for x, _ in self._points()] + [mark.value for mark in self.marks if mark.axis == "x"]
        return scales.clock(values) if self.x == "clock" else scales.linear(values)

    @property
    def y_scale(self) -> Scale:
        """The left axis."""
        values = [y for _, y in self._points()] + [mark.value for mark in self.marks if mark.axis == "y"]
        return scales.logarithmic(values) if self.y == "logarithmic" else scales.linear(values)

    def left(self, x: float) -> float:
        """Pixels from the left edge."""
        return round(LEFT + self.x_scale.share(x) * (self.width - LEFT - RIGHT), 1)

    def top(self, y: float) -> float:
        """Pixels from the upper edge."""
        return round(self.height - BOTTOM - self.y_scale.share(y) * (self.height - TOP - BOTTOM), 1)

    @property
    def frame(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the area that values lie in."""
        return LEFT, TOP, self.width - RIGHT, self.height - BOTTOM

    def places(self, line: Line) -> list[Point]:
        """The points of a line in pixels; a step line gets its corners."""
        x_scale, y_scale = self.x_scale, self.y_scale  # once: a line may have many points
        across, up = self.width - LEFT - RIGHT, self.height - TOP - BOTTOM
        places = [
            (round(LEFT + x_scale.share(x) * across, 1), round(self.height - BOTTOM - y_scale.share(y) * up, 1))
            for x, y in line.points
        ]
        return _stairs(places) if line.style == "step" else places

    def has_dots(self, line: Line) -> bool:
        """Whether single points are marked."""
        return line.style == "line" and len(line.points) <= DOTS_MAX and line.colour != "faint"

    def _points(self) -> list[Point]:
        return list(chain.from_iterable(line.points for line in self.lines))


def _stairs(places: Sequence[Point]) -> list[Point]:
    corners = list(places[:1])
    for (_, before), (x, y) in pairwise(places):
        corners += [(x, before), (x, y)] if y != before else [(x, y)]
    return corners
