"""Figures: the charts of a report, each with a table of the numbers that it draws."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np

from toolkit.harness import intervals
from toolkit.harness.measurement import Measurement
from toolkit.harness.results import Results
from toolkit.harness.roofline import Peaks, Reach, reach
from toolkit.report.amounts import rate, span
from toolkit.report.chart import Rule, Series, chart
from toolkit.report.grid import grid
from toolkit.report.markup import Child, tag
from toolkit.report.scale import Axis, label
from toolkit.report.summary import QUANTILES, EngineSummary

POINTS = 160  # of a distribution: more would not be seen
Content = list[Element]


def distributions(summary: Sequence[EngineSummary]) -> Content:
    """Share of calls that were faster than each time, an engine a line; and the percentiles."""
    timed = [(row, row.latency) for row in summary if row.latency is not None]
    series = [_distribution(row, m) for row, m in timed]
    spread = [m.seconds for _, m in timed]
    wide = bool(spread) and bool(max(map(np.max, spread)) > 8 * min(map(np.min, spread)))
    batch = ", ".join(str(b) for b in sorted({m.batch for _, m in timed}))
    drawing = chart(
        f"How long a call takes, batch {batch}" if timed else "How long a call takes",
        "Each line climbs from its fastest call to its slowest: the further left and the steeper, the better.",
        series,
        Axis(label="milliseconds a call" + (", logarithmic" if wide else ""), log=wide),
        Axis(label="share of calls, %", low=0, high=100, ticks=(0, 25, 50, 75, 100)),
    )
    if not timed:
        return [drawing]
    head = ["engine", "calls", *(f"p{100 * q:g} ms" for q in QUANTILES)]
    body: list[list[Child]] = [[row.name, str(len(m.seconds)), *_percentiles(m)] for row, m in timed]
    return [drawing, grid(head, body, styles=[row.style for row, _ in timed])]


def _percentiles(measurement: Measurement) -> list[Child]:
    """Each with its interval."""
    cells: list[Child] = []
    for q in QUANTILES:
        found = intervals.percentile(measurement, q)
        if found is None:
            cells.append("too few calls")
            continue
        ends = span([1e3 * end for end in found[1:]], lambda value: f"{value:.3f}")
        cells.append(tag("span", f"{1e3 * found.value:.3f} ", tag("small", ends)))
    return cells


def _distribution(row: EngineSummary, measurement: Measurement) -> Series:
    shares = np.linspace(0, 1, min(POINTS, max(2, len(measurement.seconds))))
    values = np.quantile(measurement.seconds, shares, method="inverted_cdf") * 1e3
    return Series(name=row.name, x=tuple(values.tolist()), y=tuple((shares * 100).tolist()), style=row.style, mark="step")


def pareto(summary: Sequence[EngineSummary]) -> Content:
    """Accuracy against latency; without labels, agreement against latency."""
    labeled = any(row.top1 is not None for row in summary)
    what = "top-1 accuracy, %" if labeled else "agreement with the reference, %"
    points = [(row, _height(row, labeled)) for row in summary]
    drawn = [(row, row.p50, height) for row, height in points if row.p50 is not None and height is not None]
    best = _front([(p50, height[0]) for _, p50, height in drawn])
    wide = len(drawn) > 1 and max(p50 for _, p50, _ in drawn) > 8 * min(p50 for _, p50, _ in drawn)
    series = [
        Series(name=row.name, x=(p50,), y=(y,), style=row.style, mark="points", low=(low,), high=(high,), labels=(row.name,))
        for row, p50, (y, low, high) in drawn
    ]
    front = [Rule(name="nothing here is both faster and more accurate", points=best)] if len(best) > 1 else []
    drawing = chart(
        "Accuracy against speed",
        "Up is more accurate, left is faster. A bar, where drawn, is the 95 % interval of the difference from the reference.",
        series,
        Axis(label="p50, milliseconds a call" + (", logarithmic" if wide else ""), log=wide, low=None if wide else 0),
        Axis(label=what),
        front,
    )
    if not drawn:
        return [drawing]
    body = [[row.name, f"{p50:.3f}", f"{y:.2f}", _span(low, high)] for row, p50, (y, low, high) in drawn]
    return [drawing, grid(["engine", "p50 ms", what, "95 % interval"], body, styles=[row.style for row, _, _ in drawn])]


def _span(low: float, high: float) -> str:
    return "-" if low == high else f"{low:.2f} to {high:.2f}"


def _height(row: EngineSummary, labeled: bool) -> tuple[float, float, float] | None:
    """A point and its interval, in percent."""
    if labeled:
        test = row.verdict.test if row.verdict else None
        if row.top1 is None:
            return None
        y = 100 * row.top1
        low, high = (y + 100 * (v - test.difference) for v in test.interval) if test else (y, y)
        return y, max(low, 0.0), min(high, 100.0)
    return (100 * row.verdict.agreement,) * 3 if row.verdict else None


def _front(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Those that no other point beats in both coordinates, from the fastest on."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return tuple(front)


def sweep(results: Results, summary: Sequence[EngineSummary]) -> Content:
    """Throughput by batch, closed loop or offline, whichever was measured."""
    style = {row.name: row.style for row in summary}
    found = [m for m in results.measurements if m.scenario != "server" and m.throughput]
    best: dict[tuple[str, int], Measurement] = {}
    for m in found:
        if (m.engine, m.batch) not in best or (m.throughput or 0) > (best[m.engine, m.batch].throughput or 0):
            best[m.engine, m.batch] = m
    batches = sorted({batch for _, batch in best})
    series = []
    for name in dict.fromkeys(name for name, _ in best):
        points = [(float(b), best[name, b].throughput or 0.0) for b in batches if (name, b) in best]
        x, y = zip(*points, strict=True)
        series.append(Series(name=name, x=x, y=y, style=style[name], mark="both"))
    drawing = chart(
        "Images a second, by batch",
        "What a larger batch brings. The best of closed loop and offline is drawn.",
        series,
        Axis(label="batch", log=len(batches) > 1, ticks=tuple(map(float, batches))),
        Axis(label="images a second", low=0),
    )
    if not series:
        return [drawing]
    head = ["engine", *(f"batch {b}" for b in batches)]
    body: list[list[Child]] = [[s.name, *(_cell(best.get((s.name, b))) for b in batches)] for s in series]
    return [drawing, grid(head, body, styles=[s.style for s in series])]


def _cell(measurement: Measurement | None) -> Child:
    found = intervals.throughput(measurement) if measurement is not None else None
    return "-" if found is None else tag("span", f"{found.value:,.1f} ", tag("small", span(found[1:], rate)))


def roofline(results: Results, summary: Sequence[EngineSummary]) -> Content:
    """Multiply-adds a second against arithmetic intensity, under the measured roofs; and percent of the roof."""
    peaks, style = results.peaks, {row.name: row.style for row in summary}
    known = [m for m in results.measurements if m.scenario != "server" and m.engine in results.work]
    reached = [r for m in known if peaks and (r := reach(m, results.work[m.engine], peaks))]
    best = {(r.engine, r.batch): r for r in sorted(reached, key=lambda r: r.rate)}
    names = [row.name for row in summary if any(r.engine == row.name for r in best.values())]
    points = {name: sorted((r for r in best.values() if r.engine == name), key=lambda r: r.batch) for name in names}
    drawing = chart(
        "How near to the machine's limit",
        "The slope is what memory can feed, the flat part what arithmetic can do; both were measured here. "
        "A point is an engine at one batch.",
        [_reached(points[name], style[name]) for name in names],
        Axis(label="multiply-adds for each byte moved, logarithmic", log=True),
        Axis(label="multiply-adds a second, logarithmic", log=True),
        _roofs(peaks, list(best.values())) if peaks and best else (),
    )
    if not best or peaks is None:
        return [drawing]
    head = ["engine", "batch", "multiply-adds/s", "roof", "of the roof"]
    rows_ = [r for name in names for r in points[name]]
    body = [[r.engine, str(r.batch), label(r.rate), f"{label(r.roof)} ({r.kind})", f"{r.share:.0%}"] for r in rows_]
    note = f"Peaks with {peaks.threads} threads: {peaks.how}."
    if any(r.share > 1.05 for r in rows_):
        note += " A share above 100 % says that the machine was busy while its peaks were measured: bench again when it is idle."
    return [drawing, grid(head, body, styles=[style[r.engine] for r in rows_], note=note)]


def _reached(points: Sequence[Reach], style: int) -> Series:
    x, y = tuple(r.intensity for r in points), tuple(r.rate for r in points)
    return Series(name=points[0].engine, x=x, y=y, style=style, mark="both")


def _roofs(peaks: Peaks, points: Sequence[Reach]) -> list[Rule]:
    """A roof a type: up the slope of memory to where arithmetic binds, then level."""
    right = 2 * max(r.intensity for r in points)
    rules = []
    for kind in sorted({r.kind for r in points}):
        knee = peaks.macs[kind] / peaks.bytes
        left = min(knee, min(r.intensity for r in points)) / 2
        corner = [(knee, peaks.macs[kind])] if knee < right else []
        end = (right, min(peaks.macs[kind], right * peaks.bytes))
        name = f"roof {kind}: {label(peaks.macs[kind])} multiply-adds/s, {label(peaks.bytes)} bytes/s"
        rules.append(Rule(name=name, points=((left, left * peaks.bytes), *corner, end), label=kind))
    return rules
