"""Ratios: how many times as fast each engine is as each other, with intervals; and the classes that changed."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from toolkit.harness import intervals
from toolkit.harness.results import Results
from toolkit.harness.verdict import ClassChange
from toolkit.report.amounts import span, times
from toolkit.report.grid import grid
from toolkit.report.markup import Child, tag
from toolkit.report.summary import EngineSummary

LEVEL = 0.05


def ratios(summary: Sequence[EngineSummary]) -> list[Element]:
    """A table: the engine of the row over that of the column."""
    timed = [row for row in summary if row.latency is not None]
    if len(timed) < 2:
        return [tag("p", "There is no pair of engines to compare.", class_="absent")]
    body: list[list[Child]] = []
    for fast in timed:
        cells: list[Child] = [fast.name]
        for slow in timed:
            found = intervals.ratio(slow.latency, fast.latency) if slow.latency and fast.latency and slow is not fast else None
            cells.append("-" if found is None else tag("span", f"{times(found.value)} ", tag("small", span(found[1:], times))))
        body.append(cells)
    note = (
        "How many times as fast the row's engine is as the column's, by p50, with the 95 % interval. Engines that "
        "took turns in the same rounds are compared round by round, so these intervals are narrower than those of their parts."
    )
    return [grid(["engine", *(f"over {row.name}" for row in timed)], body, styles=[row.style for row in timed], note=note)]


def classes(results: Results) -> list[Element]:
    """For each judged engine the classes that it answers better or worse than its reference, the worst first."""
    judged = [v for v in results.verdicts if v.changes]
    if not judged:
        return [tag("p", "There are no labels, and so no accuracy by class.", class_="absent")]
    return [part for v in judged for part in _changes(v.engine, v.reference, v.changes)]


def _changes(engine: str, reference: str, changes: Sequence[ClassChange]) -> list[Element]:
    head = tag("h3", f"{engine} against {reference}")
    ordered = sorted(changes, key=lambda c: (c.engine - c.reference, c.p, c.label))
    moved = [c for c in ordered if c.engine != c.reference]
    if not moved:
        return [head, tag("p", f"Each of the {len(changes)} classes is answered as often right as before.")]
    shown = sum(c.p < LEVEL for c in moved)
    proof = f"{shown} beyond chance (McNemar, corrected for {len(changes)} classes)" if shown else "none beyond chance"
    body: list[list[Child]] = [
        [c.name, f"{c.images:,}", f"{c.reference:.2%}", f"{c.engine:.2%}", f"{100 * (c.engine - c.reference):+.2f}", f"{c.p:.3g}"]
        for c in moved
    ]
    columns = ["class", "images", "right before", "right now", "points", "p"]
    return [head, tag("p", f"{len(moved)} of {len(changes)} classes changed, {proof}."), grid(columns, body)]
