"""Page: results as one HTML file that opens offline, on a phone and on paper, in light and dark. No script."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from toolkit.harness.results import Results
from toolkit.report.amounts import times
from toolkit.report.details import environment, layers, manifests, trust
from toolkit.report.figures import distributions, pareto, roofline, sweep
from toolkit.report.frame import frame, section
from toolkit.report.gallery import Gallery, draw
from toolkit.report.grid import grid
from toolkit.report.markup import Child, tag
from toolkit.report.summary import EngineSummary, baseline, rows
from toolkit.report.table import COLUMNS, WORDS, cells_of, note, title


def html(results: Results, galleries: Sequence[Gallery] | None = None) -> str:
    """The report. `galleries` as `gallery.galleries` makes them; None: the pictures were not looked up."""
    summary = rows(results)
    sections = [
        _verdicts(results, summary),
        section("summary", "Summary", _summary(results, summary)),
        section("accuracy-speed", "Accuracy against speed", pareto(summary)),
        section("latency", "Latency", distributions(summary)),
        section("batches", "Batches", sweep(results, summary)),
        section("roofline", "Roofline", roofline(results, summary)),
        section("layers", "Where the time goes", layers(results)),
        section("gallery", "Where the answers differ", _gallery(results, galleries)),
        section("trust", "How far to trust these numbers", trust(results, summary)),
        section("environment", "Environment", environment(results)),
        section("manifests", "Engines", manifests(results)),
    ]
    where = results.environment
    heading = f"{len(summary)} engine{'s' * (len(summary) != 1)}, measured"
    line = f"{where.device} · measured {where.started.replace('T', ' ')}"
    return frame(f"Toolkit report: {title(results, summary)}", heading, line, sections)


def _verdicts(results: Results, summary: Sequence[EngineSummary]) -> Element:
    """A card an engine that was judged: the word, the reason, the speed."""
    base = baseline(results)
    cards = [_card(row, base) for row in summary if row.verdict]
    if not cards:
        cards = [tag("p", "No engine was held against a reference: run `toolkit accuracy ENGINE`.", class_="absent")]
    failures = [tag("p", tag("strong", f"{name} failed: "), why, class_="failed") for name, why in results.failures.items()]
    return tag("section", tag("h2", "Verdict"), tag("div", cards, class_="cards"), failures, id="verdict")


def _card(row: EngineSummary, base: str | None) -> Element:
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


def _summary(results: Results, summary: list[EngineSummary]) -> list[Element]:
    words = [i for i, column in enumerate(COLUMNS) if column in WORDS]
    styles = [row.style for row in summary]
    return [grid(COLUMNS, [cells_of(row) for row in summary], styles=styles, text=words, note=note(results, summary))]


def _gallery(results: Results, galleries: Sequence[Gallery] | None) -> list[Element]:
    if galleries:
        return [draw(gallery) for gallery in galleries]
    if results.verdicts and not any(v.disagreements for v in results.verdicts):
        return [tag("p", "Every engine gave every image its reference's answer.")]
    return [tag("p", "No answers were kept for this section.", class_="absent")]
