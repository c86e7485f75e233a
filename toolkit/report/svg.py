"""SVG: the report's accuracy-against-speed chart as a file of its own, light or dark, for a README or a slide."""

from __future__ import annotations

import re
from importlib.resources import files
from xml.etree.ElementTree import tostring

from toolkit.errors import MeasurementError
from toolkit.harness.results import Results
from toolkit.report.chart import HEIGHT, WIDTH
from toolkit.report.figures import pareto
from toolkit.report.markup import number, tag
from toolkit.report.summary import rows

FONT = 'text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }'
DRAWN = re.compile(r"^(?:g\.grid|\.labels|\.line|\.mark|\.rule|\.interval|\.s\d) .*$|^(?:\.line, |\.mark\.).*$", re.M)


def pareto_svg(results: Results, *, dark: bool = False) -> str:
    """The chart with the page's own colors written into it, as an image in a page cannot take them from there.

    Raises MeasurementError where the results have nothing to draw: no latency, or no answers.
    """
    drawing = next((element for part in pareto(rows(results)) for element in part.iter("svg")), None)
    if drawing is None or drawing.find("title") is None:
        raise MeasurementError(
            "no engine of these results has both a latency and a verdict", remedy="Run: toolkit bench ENGINE..."
        )
    drawing.set("xmlns", "http://www.w3.org/2000/svg")
    drawing.set("width", number(2 * WIDTH))
    drawing.set("height", number(2 * HEIGHT))
    drawing.insert(2, tag("style", _style(dark)))
    drawing.insert(3, tag("rect", width="100%", height="100%", fill="var(--paper)"))
    return tostring(drawing, encoding="unicode") + "\n"


def _style(dark: bool) -> str:
    sheet = files("toolkit.report").joinpath("style.css").read_text(encoding="utf-8")
    colors = re.findall(r":root \{([^}]*)\}", sheet)[1 if dark else 0]
    return "\n".join([f":root {{{' '.join(colors.split())}}}", FONT, *DRAWN.findall(sheet)])
