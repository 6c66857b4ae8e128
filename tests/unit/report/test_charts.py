import xml.etree.ElementTree as ElementTree

from nomadserve.report import Chart, Line, Mark, hours, page
from nomadserve.report.charts import BOTTOM, HEIGHT, LEFT, TOP

LINE = Line("p99", [(0, 0), (50, 5), (100, 10)])


def chart(*lines: Line, **options: object) -> Chart:
    return Chart("Latency", "load", "ms", lines or (LINE,), **options)  # type: ignore[arg-type]


def test_zero_lies_at_the_lower_left_and_the_highest_at_the_top() -> None:
    places = chart().places(LINE)
    assert places[0] == (LEFT, HEIGHT - BOTTOM)
    assert places[-1][1] == TOP


def test_a_step_line_holds_its_value_until_the_next() -> None:
    steps = Line("count", [(0, 1), (50, 3), (100, 3)], style="step")
    drawing = chart(steps)
    (_, low), corner, high, end = drawing.places(steps)
    assert corner == (drawing.left(50), low)
    assert high == (drawing.left(50), drawing.top(3))
    assert end == (drawing.left(100), drawing.top(3))


def test_a_mark_beyond_all_values_still_lies_in_the_chart() -> None:
    drawing = chart(marks=[Mark("y", 100, "limit")])
    assert TOP <= drawing.top(100) < drawing.top(10)


def test_a_chart_without_points_is_empty() -> None:
    assert chart(Line("nothing", [])).is_empty
    assert not chart().is_empty


def test_many_points_have_no_dots() -> None:
    assert chart().has_dots(LINE)
    assert not chart().has_dots(Line("curve", [(float(n), 1.0) for n in range(100)]))


def test_time_is_written_as_a_clock_shows_it() -> None:
    assert [hours(seconds) for seconds in (0, 59.6, 90, 86_400)] == ["0:00:00", "0:01:00", "0:01:30", "24:00:00"]


def test_what_comes_from_outside_is_escaped(tmp_path: object) -> None:
    text = page("chart_alone.html.j2", chart=chart(Line("<script>", [(0, 1), (1, 2)])))
    assert "<script>" not in text
    drawing = text[text.index('<svg viewBox="0 0 640') : text.rindex("</svg>") + 6]
    assert ElementTree.fromstring(drawing).tag == "svg"
