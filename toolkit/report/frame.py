"""Frame: what every page has: a head with the style sheet in it, a header, sections. No script, nothing fetched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from toolkit.report.markup import Child, document, tag

STYLE = Path(__file__).with_name("style.css")


def frame(title: str, heading: str, line: str, sections: Sequence[Element]) -> str:
    """A whole page as HTML: opens offline, on a phone and on paper, in light and dark."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("title", title),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("style", _compact(STYLE.read_text(encoding="utf-8"))),
    )
    header = tag("header", tag("h1", heading), tag("p", line))
    return document(tag("html", head, tag("body", header, tag("main", list(sections))), lang="en"))


def section(name: str, heading: str, content: Sequence[Child]) -> Element:
    """A part of the page under a heading; `name` is its anchor."""
    return tag("section", tag("h2", heading), *content, id=name)


def _compact(style: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/", "", style, flags=re.S)).strip()
