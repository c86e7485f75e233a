"""Chart: lines, steps and points as inline SVG that takes its colors from the page, so it follows dark mode and prints.

A drawing is 420 x 270 units and is shown at 320 to 620 pixels: its text stays legible on a phone. It has a title and a
description for screen readers; series differ in dash and marker as well as in color. A chart of nothing says so in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from xml.etree.ElementTree import Element

from toolkit.report.markup import number, tag
from toolkit.report.scale import Axis, Scale, fit, label, ticks
from toolkit.types import Frozen

WIDTH, HEIGHT = 420.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 12.0, 10.0, 40.0
DASHES = ("", "7 3", "2 3", "8 3 2 3", "12 4", "4 2")
SHAPES = (
    (-4.0, 0.0, "a4 4 0 1 0 8 0a4 4 0 1 0-8 0z"),
    (-4.0, -4.0, "h8v8h-8z"),
    (0.0, -5.0, "l5 9h-10z"),
    (0.0, -5.5, "l5 5.5-5 5.5-5-5.5z"),
    (-4.0, 0.0, "a4 4 0 1 0 8 0a4 4 0 1 0-8 0z"),
    (-4.0, 0.0, "h8m-4-4v8"),
)
PALETTE = 8  # colors --s0 .. --s7 of the style sheet


class Series(Frozen, frozen=True):
    """One engine in a chart. `style` picks color, dash and marker: an engine keeps its own in every chart of a page.

    `mark`: `line` joins the points, `step` draws a distribution, `points` marks them alone, `both` joins and marks.
    `low` and `high`, where given, draw an interval in y at each point.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    style: int
    mark: Literal["line", "step", "points", "both"] = "line"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()  # printed beside the points


class Rule(Frozen, frozen=True):
    """A line across the drawing that the data is read against: the reference's accuracy, a measured peak."""

    name: str
    points: tuple[tuple[float, float], ...]
    label: str = ""  # printed above its end


class Mark(Frozen, frozen=True):
    """A moment on the x axis: a short line at the top, that says its name to a pointer."""

    x: float
    name: str


def chart(
    title: str,
    description: str,
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    rules: Sequence[Rule] = (),
    marks: Sequence[Mark] = (),
) -> Element:
    """A <figure>: drawing, legend, caption. Series without points are left out; without any, the figure says so.

    The scales stand on the drawing as `low high start end log`: the page's script reads values off them.
    """
    drawn = [s for s in series if s.x]
    caption = tag("figcaption", tag("strong", title), " ", description)
    if not drawn:
        return tag("figure", caption, tag("p", "Nothing was measured for this chart.", class_="absent"), class_="chart")
    xs, ys = _extent(drawn, rules)
    across, up = fit(xs, x, LEFT, WIDTH - RIGHT), fit(ys, y, HEIGHT - BOTTOM, TOP)
    drawing = tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        _grid(across, up, x, y),
        [_rule(r, across, up) for r in rules],
        [_series(s, across, up) for s in drawn],
        _labels(drawn, across, up),
        [_mark(mark, across.at(mark.x)) for mark in marks if across.low <= mark.x <= across.high],
        viewBox=f"0 0 {number(WIDTH)} {number(HEIGHT)}",
        role="img",
        aria_label=f"{title}. {description}",
        data_x=_told(across),
        data_y=_told(up),
        data_x_label=x.label.partition(", log")[0],
        data_y_label=y.label.partition(", log")[0],
    )
    return tag("figure", drawing, _legend(drawn, rules), caption, class_="chart")


def _told(scale: Scale) -> str:
    return f"{scale.low:.6g} {scale.high:.6g} {number(scale.start)} {number(scale.end)} {int(scale.log)}"


def _mark(mark: Mark, at: float) -> Element:
    return tag("g", tag("title", mark.name), tag("path", d=f"M{number(at)} {number(TOP)}v9", class_="line"), class_="moment")


def _extent(series: Sequence[Series], rules: Sequence[Rule]) -> tuple[list[float], list[float]]:
    xs = [v for s in series for v in s.x] + [p[0] for r in rules for p in r.points]
    ys = [v for s in series for v in (*s.y, *s.low, *s.high)] + [p[1] for r in rules for p in r.points]
    return xs, ys


def _grid(across: Scale, up: Scale, x: Axis, y: Axis) -> Element:
    group = tag("g", class_="grid")
    for value in x.ticks or ticks(across):
        at = across.at(value)
        group.append(tag("path", d=f"M{number(at)} {number(up.start)}V{number(up.end)}"))
        group.append(tag("text", label(value), x=at, y=up.start + 14, text_anchor="middle"))
    for value in y.ticks or ticks(up):
        at = up.at(value)
        group.append(tag("path", d=f"M{number(across.start)} {number(at)}H{number(across.end)}"))
        group.append(tag("text", label(value), x=across.start - 5, y=at + 3.5, text_anchor="end"))
    middle = (across.start + across.end) / 2
    group.append(tag("text", x.label, x=middle, y=HEIGHT - 6, text_anchor="middle", class_="axis"))
    turn = f"translate(11 {number((up.start + up.end) / 2)}) rotate(-90)"
    group.append(tag("text", y.label, transform=turn, text_anchor="middle", class_="axis"))
    return group


def _rule(rule: Rule, across: Scale, up: Scale) -> Element:
    path = "M" + "L".join(f"{number(across.at(x))} {number(up.at(y))}" for x, y in rule.points)
    x, y = rule.points[-1]
    text = tag("text", rule.label, x=across.at(x), y=up.at(y) - 4, text_anchor="end") if rule.label else None
    return tag("g", tag("title", rule.name), tag("path", d=path, class_="line"), text, class_="rule")


def _series(series: Series, across: Scale, up: Scale) -> Element:
    points = [(across.at(x), up.at(y)) for x, y in zip(series.x, series.y, strict=True)]
    group = tag("g", tag("title", series.name), class_=f"series s{series.style % PALETTE}")
    if series.mark != "points":
        dash = DASHES[series.style % len(DASHES)] or None
        group.append(tag("path", d=_path(points, series.mark == "step"), class_="line", stroke_dasharray=dash))
    for (at, _), low, high in zip(points, series.low, series.high, strict=False):
        group.append(tag("path", d=f"M{number(at)} {number(up.at(low))}V{number(up.at(high))}", class_="interval"))
    if series.mark in ("points", "both"):
        group.extend(marker(series.style, *point) for point in points)
    return group


def _path(points: Sequence[tuple[float, float]], step: bool) -> str:
    first, *rest = points
    path = f"M{number(first[0])} {number(first[1])}"
    for x, y in rest:
        path += f"H{number(x)}V{number(y)}" if step else f"L{number(x)} {number(y)}"
    return path if rest else path + "h0.01"  # a round cap makes a lone point a dot


def marker(style: int, x: float, y: float) -> Element:
    """The mark of a series: disc, square, triangle, diamond, ring, cross."""
    dx, dy, shape = SHAPES[style % len(SHAPES)]
    hollow = style % len(SHAPES) >= 4
    kind, at = "mark hollow" if hollow else "mark", f"{number(x)} {number(y)}"
    return tag("path", d=f"M{number(x + dx)} {number(y + dy)}{shape}", class_=kind, data_at=at)


def _labels(series: Sequence[Series], across: Scale, up: Scale) -> Element:
    """Names beside points, pushed down where two would overlap; past the middle they stand on the left of their point."""
    wanted = [(up.at(y), across.at(x), text, s.style) for s in series for x, y, text in zip(s.x, s.y, s.labels, strict=False)]
    group = tag("g", class_="labels")
    last = {True: TOP - 13.0, False: TOP - 13.0}
    for y, x, text, style in sorted(wanted):
        left = x > (across.start + across.end) / 2
        last[left] = max(y + 3.5, last[left] + 13)
        side = -9 if left else 9
        anchor = "end" if left else "start"
        group.append(tag("text", text, x=x + side, y=last[left], text_anchor=anchor, class_=f"s{style % PALETTE}"))
    return group


def _legend(series: Sequence[Series], rules: Sequence[Rule]) -> Element:
    entries = [(s.name, swatch(s.style, s.mark)) for s in series]
    entries += [(r.name, _line("rule", None)) for r in rules]
    return tag("ul", [tag("li", drawing, tag("span", name)) for name, drawing in entries], class_="legend")


def swatch(style: int, mark: str) -> Element:
    """A short sample of a series' line and marker, for legends and tables."""
    if mark == "points":
        group = tag("g", marker(style, 12.0, 6.0), class_=f"series s{style % PALETTE}")
        return tag("svg", group, viewBox="0 0 24 12", aria_hidden="true")
    drawing = _line(f"series s{style % PALETTE}", DASHES[style % len(DASHES)] or None)
    if mark == "both":
        drawing[0].append(marker(style, 12.0, 6.0))
    return drawing


def _line(kind: str, dash: str | None) -> Element:
    path = tag("path", d="M1 6H23", class_="line", stroke_dasharray=dash)
    return tag("svg", tag("g", path, class_=kind), viewBox="0 0 24 12", aria_hidden="true")
