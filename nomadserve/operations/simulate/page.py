"""A simulation as an HTML page: traffic, replicas, refusals and waits over time, and every change of the count."""

from collections.abc import Callable

from nomadserve.operations.simulate.result import Moment, Result
from nomadserve.report import Chart, Line, page
from nomadserve.report.charts import Point

TIME = "time since the start"


def simulation_page(result: Result) -> str:
    """The whole page, self-contained."""
    return page("simulation.html.j2", result=result, charts=charts(result))


def charts(result: Result) -> list[Chart]:
    """Four charts over time."""

    def over_time(value: Callable[[Moment], float]) -> list[Point]:
        points = [(moment.at_s, value(moment)) for moment in result.moments]
        return [*points, (result.seconds, points[-1][1])] if points else points

    capacity = result.assumptions.capacity
    length_s = result.moments[1].at_s - result.moments[0].at_s if len(result.moments) > 1 else result.seconds
    return [
        Chart(
            "Traffic",
            TIME,
            "requests/s",
            [
                Line("what the ready replicas can answer", over_time(lambda m: m.ready * capacity), "c", "step"),
                Line("offered", over_time(lambda m: m.offered), "a", "step"),
            ],
            x="clock",
        ),
        Chart(
            "Replicas",
            TIME,
            "replicas",
            [
                Line("ready", over_time(lambda m: m.ready), "c", "step"),
                Line("asked for", over_time(lambda m: m.count), "faint", "step"),
            ],
            x="clock",
        ),
        Chart(
            "Refused",
            TIME,
            "requests/s",
            [Line("refused (503)", over_time(lambda m: m.refused), "b", "step")],
            x="clock",
            note=f"Means over {length_s:g} s.",
        ),
        Chart(
            "Wait in the queue",
            TIME,
            "seconds, the longest",
            [Line("wait", over_time(lambda m: m.wait_s), "a", "step")],
            x="clock",
            note="Bursts shorter than a tick, and the time of a batch itself, are not in it.",
        ),
    ]
