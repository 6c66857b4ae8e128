"""Pages and charts: numbers in, one HTML file out that needs nothing else, neither script nor network.

scales.py   numbers → places on an axis, and round numbers to label it with (pure)
charts.py   lines → the geometry of a chart (pure)
templates/  how charts and pages look
"""

from nomadserve.report.charts import Chart, Line, Mark
from nomadserve.report.page import hours, page

__all__ = ["Chart", "Line", "Mark", "hours", "page"]
