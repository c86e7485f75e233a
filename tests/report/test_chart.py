"""Charts: what is drawn is what was given."""

from __future__ import annotations

import re
from itertools import pairwise

from toolkit.report.chart import Rule, Series, chart
from toolkit.report.scale import Axis

X, Y = Axis(label="across"), Axis(label="up")


def coordinates(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


def test_a_line_has_its_points_in_proportion():
    series = Series(name="a", x=(0, 1, 2), y=(0, 10, 40), style=1)
    figure = chart("t", "d", [series], X, Y)
    (path,) = figure.findall(".//g[@class='series s1']/path[@class='line']")[:1]
    (x0, y0), (x1, y1), (x2, y2) = coordinates(path.get("d", ""))
    assert round((x1 - x0) / (x2 - x0), 2) == 0.5
    assert round((y1 - y0) / (y2 - y0), 2) == 0.25
    assert y2 < y0, "larger is higher"


def test_a_step_moves_along_one_axis_at_a_time():
    figure = chart("t", "d", [Series(name="a", x=(1, 2), y=(0, 1), style=0, mark="step")], X, Y)
    path = figure.find(".//path[@class='line']")
    assert path is not None
    assert re.fullmatch(r"M[\d.]+ [\d.]+H[\d.]+V[\d.]+", path.get("d", ""))


def test_series_differ_without_color():
    both = [Series(name=str(i), x=(1, 2), y=(i, i), style=i, mark="both") for i in range(6)]
    figure = chart("t", "d", both, X, Y)
    dashes = [p.get("stroke-dasharray") for p in figure.findall("./svg/g/path[@class='line']")]
    assert len(set(dashes)) == 6


def test_labels_do_not_overlap():
    points = [Series(name=f"e{i}", x=(1 + i / 1e6,), y=(5.0,), style=i, mark="points", labels=(f"e{i}",)) for i in range(6)]
    figure = chart("t", "d", points, X, Y)
    texts = figure.findall(".//g[@class='labels']/text")
    for side in ("start", "end"):
        heights = sorted(float(t.get("y", "")) for t in texts if t.get("text-anchor") == side)
        assert all(b - a >= 12.9 for a, b in pairwise(heights))


def test_an_empty_chart_is_words():
    figure = chart("t", "d", [Series(name="a", x=(), y=(), style=0)], X, Y, [Rule(name="r", points=((0, 0), (1, 1)))])
    assert figure.find("svg") is None
    assert "Nothing was measured" in "".join(figure.itertext())
