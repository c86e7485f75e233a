"""Page: results as one HTML file that opens offline, on a phone and on paper, in light and dark. No script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from toolkit.harness.results import Results
from toolkit.report.details import environment, layers, manifests, trust
from toolkit.report.figures import distributions, pareto, roofline, sweep
from toolkit.report.gallery import Gallery, draw
from toolkit.report.grid import grid
from toolkit.report.markup import Child, document, tag
from toolkit.report.summary import Row, baseline, rows, times
from toolkit.report.table import COLUMNS, WORDS, cells_of, note, title

STYLE = Path(__file__).with_name("style.css")


def html(results: Results, galleries: Sequence[Gallery] | None = None) -> str:
    """The report. `galleries` as `gallery.galleries` makes them; None: the pictures were not looked up."""
    summary = rows(results)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("title", f"Toolkit report: {title(results, summary)}"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("style", _compact(STYLE.read_text(encoding="utf-8"))),
    )
    main = tag(
        "main",
        _verdicts(results, summary),
        _section("summary", "Summary", _summary(results, summary)),
        _section("accuracy-speed", "Accuracy against speed", pareto(summary)),
        _section("latency", "Latency", distributions(summary)),
        _section("batches", "Batches", sweep(results, summary)),
        _section("roofline", "Roofline", roofline(results, summary)),
        _section("layers", "Where the time goes", layers(results)),
        _section("gallery", "Where the answers differ", _gallery(results, galleries)),
        _section("trust", "How far to trust these numbers", trust(results, summary)),
        _section("environment", "Environment", environment(results)),
        _section("manifests", "Engines", manifests(results)),
    )
    return document(tag("html", head, tag("body", _header(results, summary), main), lang="en"))


def _header(results: Results, summary: Sequence[Row]) -> Element:
    where = results.environment
    line = f"{where.device} · measured {where.started.replace('T', ' ')}"
    return tag("header", tag("h1", f"{len(summary)} engine{'s' * (len(summary) != 1)}, measured"), tag("p", line))


def _section(name: str, heading: str, content: Sequence[Element]) -> Element:
    return tag("section", tag("h2", heading), list(content), id=name)


def _verdicts(results: Results, summary: Sequence[Row]) -> Element:
    """A card an engine that was judged: the word, the reason, the speed."""
    base = baseline(results)
    cards = [_card(row, base) for row in summary if row.verdict]
    if not cards:
        cards = [tag("p", "No engine was held against a reference: run `toolkit accuracy ENGINE`.", class_="absent")]
    failures = [
        tag("p", tag("strong", f"{name} failed: "), why, class_="failed") for name, why in results.failures.items()
    ]
    return tag("section", tag("h2", "Verdict"), tag("div", cards, class_="cards"), failures, id="verdict")


def _card(row: Row, base: str | None) -> Element:
    assert row.verdict is not None
    good = row.verdict.accepted
    speed: Child = None
    if row.speedup is not None and base != row.name:
        speed = tag("p", tag("strong", times(row.speedup)), f" as fast as {base}", class_="speed")
    unsteady = tag("p", "Some timings are unsteady: see below.", class_="note") if row.trouble else None
    word = "✓ accepted" if good else "✗ refused"
    text = row.verdict.text
    reason = tag("p", f"{text[0].upper()}{text[1:]} (against {row.verdict.reference}, {row.verdict.images:,} images).")
    body = [tag("p", word, class_="word"), tag("h3", row.name), reason, speed, unsteady]
    return tag("article", *body, class_="card good" if good else "card bad")


def _summary(results: Results, summary: list[Row]) -> list[Element]:
    words = [i for i, column in enumerate(COLUMNS) if column in WORDS]
    styles = [row.style for row in summary]
    return [grid(COLUMNS, [cells_of(row) for row in summary], styles=styles, text=words, note=note(results, summary))]


def _gallery(results: Results, galleries: Sequence[Gallery] | None) -> list[Element]:
    if galleries:
        return [draw(gallery) for gallery in galleries]
    if results.verdicts and not any(v.disagreements for v in results.verdicts):
        return [tag("p", "Every engine gave every image its reference's answer.")]
    return [tag("p", "No answers were kept for this section.", class_="absent")]


def _compact(style: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/", "", style, flags=re.S)).strip()
