"""Frame: what every page has: a head with the style sheet in it, a header, sections, one script. Nothing is fetched.

The script sorts, filters, reads charts off and zooms; what a page says stands in it without. A policy in the head lets this
script run and no other, whatever a name in the results may hold, and lets nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from toolkit.report.markup import Child, document, tag

STYLE, SCRIPT = (Path(__file__).with_name(name) for name in ("style.css", "page.js"))
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'"
)


def frame(title: str, heading: str, line: str, sections: Sequence[Element]) -> str:
    """A whole page as HTML: opens offline, on a phone and on paper, in light and dark."""
    script = SCRIPT.read_text(encoding="utf-8")
    policy = POLICY.format(base64.b64encode(hashlib.sha256(script.encode()).digest()).decode())
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("title", title),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("style", _compact(STYLE.read_text(encoding="utf-8"))),
    )
    header = tag("header", tag("h1", heading), tag("p", line))
    return document(tag("html", head, tag("body", header, tag("main", list(sections)), tag("script", script)), lang="en"))


def section(name: str, heading: str, content: Sequence[Child]) -> Element:
    """A part of the page under a heading; `name` is its anchor."""
    return tag("section", tag("h2", heading), *content, id=name)


def _compact(style: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/", "", style, flags=re.S)).strip()
