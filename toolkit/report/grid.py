"""Grid: HTML tables that a phone can scroll sideways in, without scrolling the page."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from toolkit.report.chart import swatch
from toolkit.report.markup import Child, tag


def grid(
    head: Sequence[str],
    body: Sequence[Sequence[Child]],
    *,
    styles: Sequence[int] = (),
    note: str | None = None,
    text: Sequence[int] = (0,),
    title: str | None = None,
) -> Element:
    """A table with row headers. `styles` puts a series' sample before each; `text` names the columns that are no figures."""
    top = tag("tr", [tag("th", h, scope="col", class_=_kind(i, text)) for i, h in enumerate(head)])
    lines = []
    for at, cells in enumerate(body):
        sample = swatch(styles[at], "both") if styles else None
        first = tag("th", sample, cells[0], scope="row", class_=_kind(0, text))
        lines.append(tag("tr", first, [tag("td", cell, class_=_kind(i, text)) for i, cell in enumerate(cells) if i]))
    table = tag("table", tag("caption", title) if title else None, tag("thead", top), tag("tbody", lines))
    return tag("div", table, tag("p", note, class_="note") if note else None, class_="grid", tabindex="0")


def _kind(column: int, text: Sequence[int]) -> str | None:
    return None if column in text else "figure"


def bar(share: float) -> Element:
    """A share, 0 to 1, as a bar: it prints, and a reader of the table has the figure beside it."""
    rectangle = tag("rect", width=round(100 * share, 2), height="10", class_="bar")
    frame = tag("rect", width="100", height="10", class_="trough")
    return tag("svg", frame, rectangle, viewBox="0 0 100 10", aria_hidden="true", class_="share", preserveAspectRatio="none")
