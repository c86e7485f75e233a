"""Page: results as one HTML file that opens offline, on a phone and on paper, in light and dark, with script and without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

import msgspec

from toolkit.calibration.ranges import Ranges
from toolkit.errors import MeasurementError
from toolkit.harness.results import ABSENT, Results
from toolkit.report.amounts import span, times
from toolkit.report.decision import decide
from toolkit.report.details import Noise, environment, layers, manifests, trust
from toolkit.report.figures import distributions, pareto, roofline, sweep
from toolkit.report.frame import frame, section
from toolkit.report.gallery import Gallery, draw
from toolkit.report.grid import grid
from toolkit.report.histograms import histograms
from toolkit.report.markup import Child, tag
from toolkit.report.ratios import classes, ratios
from toolkit.report.summary import EngineSummary, baseline, counted, rows
from toolkit.report.table import COLUMNS, WORDS, cells_of, note, spans_of, title
from toolkit.report.timeline import timeline


def html(results: Results, galleries: Sequence[Gallery] | None = None, noise: Noise | None = None) -> str:
    """The report. `galleries` as `gallery.galleries` makes them; None: the pictures were not looked up.

    `noise`: engine -> layer -> its share of the noise in the logits, as `toolkit why` finds it.
    """
    summary = rows(results)
    sections = [
        _verdicts(results, summary),
        section("summary", "Summary", _summary(results, summary)),
        section("ratios", "Engine against engine", ratios(summary)),
        section("accuracy-speed", "Accuracy against speed", pareto(summary)),
        section("latency", "Latency", distributions(summary)),
        section("batches", "Batches", sweep(results, summary)),
        section("roofline", "Roofline", roofline(results, summary)),
        section("layers", "Where the time goes", layers(results, noise or {})),
        section("histograms", "What calibration saw", _histograms(results)),
        section("classes", "Classes that changed", classes(results)),
        section("gallery", "Where the answers differ", _gallery(results, galleries)),
        section("trust", "How far to trust these numbers", trust(results, summary)),
        section("timeline", "What the machine did meanwhile", timeline(results)),
        section("environment", "Environment", environment(results)),
        section("manifests", "Engines", manifests(results)),
    ]
    where = results.environment
    heading = f"{counted(summary)}, measured"
    line = f"{where.device} · measured {where.started.replace('T', ' ')}"
    return frame(f"Toolkit report: {title(results, summary)}", heading, line, sections)


def _verdicts(results: Results, summary: Sequence[EngineSummary]) -> Element:
    """A card an engine that was judged: the word, the reason, the speed."""
    base = baseline(results)
    decision = decide(results, summary)
    lead: list[Child] = []
    if decision is not None:
        lead = [tag("p", tag("strong", decision.sentence), " ", " ".join(decision.also), class_="decision")]
    cards = [_card(row, base) for row in summary if row.verdict]
    if not cards:
        cards = [tag("p", "No engine was compared with a reference: run `toolkit accuracy ENGINE`.", class_="absent")]
    failures = [_failure(name, why) for name, why in results.failures.items()]
    notes = [tag("p", note, class_="note") for note in results.notes]
    return tag("section", tag("h2", "Verdict"), *lead, tag("div", cards, class_="cards"), failures, notes, id="verdict")


def _failure(name: str, why: str) -> Element:
    """What was not measured did not fail."""
    if why.startswith(ABSENT):
        return tag("p", tag("strong", f"{name}: "), why, class_="note")
    return tag("p", tag("strong", f"{name} failed: "), why, class_="failed")


def _card(row: EngineSummary, base: str | None) -> Element:
    assert row.verdict is not None
    good = row.verdict.accepted
    speed: Child = None
    if row.speedup is not None and base != row.name:
        ends = span(row.spans.get("speedup"), times)
        speed = tag("p", tag("strong", times(row.speedup)), f" {ends} as fast as {base}", class_="speed")
    unsteady = tag("p", "Some timings are unsteady: see below.", class_="note") if row.trouble else None
    mark = {"accepted": "✓", "undecided": "?", "refused": "✗"}[row.verdict.state]
    text = row.verdict.text
    reason = tag("p", f"{text[0].upper()}{text[1:]} (against {row.verdict.reference}, {row.verdict.images:,} images).")
    body = [tag("p", f"{mark} {row.verdict.state}", class_="word"), tag("h3", row.name), reason, speed, unsteady]
    return tag("article", *body, class_="card good" if good else "card bad")


def _summary(results: Results, summary: list[EngineSummary]) -> list[Element]:
    words = [i for i, column in enumerate(COLUMNS) if column in WORDS]
    styles = [row.style for row in summary]
    columns, body = list(COLUMNS), [_with_spans(row) for row in summary]
    if any(row.images_per_joule for row in summary):
        columns[-1:-1] = ["img/J", "watts"]
        words[-1] += 2
        for row, line in zip(summary, body, strict=True):
            line[-1:-1] = ["-" if value is None else f"{value:.3g}" for value in (row.images_per_joule, row.watts)]
    energy = results.environment.energy
    about = note(results, summary) + (f" Energy: {energy}." if energy else "")
    return [grid(columns, body, styles=styles, text=words, note=about)]


def _with_spans(row: EngineSummary) -> list[Child]:
    """Each cell with its interval below it."""
    cells: list[Child] = []
    for cell, ends in zip(cells_of(row), spans_of(row), strict=True):
        cells.append(tag("span", cell, " ", tag("small", ends)) if ends else cell)
    return cells


def _histograms(results: Results) -> list[Element]:
    if not results.ranges:
        return [tag("p", "No engine here was calibrated.", class_="absent")]
    parts = []
    for name, raw in results.ranges.items():
        found = ranges_of(name, raw)
        calibration = (results.manifests.get(name, {}).get("recipe") or {}).get("calibration") or {}
        content = histograms(found, str(calibration.get("method", "")))
        parts.append(tag("div", tag("h3", name), *content))
    return parts


def ranges_of(name: str, raw: dict[str, Any]) -> Ranges:
    """Raises MeasurementError."""
    try:
        return msgspec.convert(raw, Ranges)
    except msgspec.ValidationError as error:
        raise MeasurementError(f"the ranges of {name} are damaged: {error}", remedy="Measure again: toolkit bench") from error


def _gallery(results: Results, galleries: Sequence[Gallery] | None) -> list[Element]:
    if galleries:
        return [draw(gallery) for gallery in galleries]
    if results.verdicts and not any(v.disagreements for v in results.verdicts):
        return [tag("p", "Every engine gave every image its reference's answer.")]
    return [tag("p", "No answers were kept for this section.", class_="absent")]
