"""Compare page: two results files of one bench, OLD and NEW, on one page: what changed beyond noise, and both in every chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np

from toolkit.harness import intervals
from toolkit.harness.compare import Comparison, Difference
from toolkit.harness.environment import Environment
from toolkit.harness.measurement import Measurement
from toolkit.harness.results import Results
from toolkit.report.amounts import milliseconds, rate, span
from toolkit.report.chart import Series, chart
from toolkit.report.frame import frame, section
from toolkit.report.grid import grid
from toolkit.report.listing import Listing
from toolkit.report.markup import Child, tag
from toolkit.report.scale import Axis
from toolkit.report.summary import latencies

POINTS = 120


def compare_page(old: Results, new: Results, found: Comparison) -> str:
    """One HTML file: opens offline, on a phone and on paper, in light and dark."""
    sections = [
        tag(
            "section", tag("h2", "What changed"), tag("p", found.headline, class_="decision"), _differences(found), id="changes"
        ),
        section("latency", "Latency, both runs", _latency(old, new)),
        section("figures", "Figures, both runs", [_figures(old, new)]),
        section("notes", "What to know about this comparison", _notes(found)),
        section("environment", "Machine and versions", [_environment(old.environment, new.environment)]),
    ]
    line = f"{new.environment.device} · OLD {_when(old)} · NEW {_when(new)}"
    return frame("OLD against NEW", found.headline, line, sections)


def differences(found: Comparison) -> Listing:
    """The comparisons for a terminal, the alarms first."""
    body, styles = [], []
    for d in sorted(found.differences, key=lambda d: not d.alarm):
        told = math.isfinite(d.change)
        change, ends = (f"{d.change:+.1%}", f"[{d.low:+.1%}, {d.high:+.1%}]") if told else ("-", d.note)
        body.append([d.engine, d.what, change, d.word, ends])
        styles.append("bold red" if d.alarm else "")
    return Listing(("engine", "what", "change", "", "95 % interval"), body, text=(0, 1, 3, 4), styles=styles)


def _when(results: Results) -> str:
    commit = f", commit {results.environment.commit[:9]}" if results.environment.commit else ""
    return f"{results.environment.started.replace('T', ' ')}{commit}"


def _differences(found: Comparison) -> list[Element]:
    ordered = sorted(found.differences, key=lambda d: (not d.alarm, -abs(d.change) if math.isfinite(d.change) else 0))
    timed = [d for d in ordered if math.isfinite(d.change) and d.what != "top-1"]
    body: list[list[Child]] = []
    for d in ordered:
        change, ends = ("-", d.note) if not math.isfinite(d.change) else (f"{d.change:+.1%}", f"{d.low:+.1%} to {d.high:+.1%}")
        word = tag("strong", d.word, class_="failed") if d.alarm else d.word
        body.append([d.engine, d.what, change, ends, word])
    table = grid(["engine", "what", "change", "95 % interval", "outcome"], body, text=(0, 1, 3, 4))
    return [_forest(timed, found.tolerance), table] if timed else [table]


def _forest(timed: Sequence[Difference], tolerance: float) -> Element:
    """Each change of time as a point with its interval."""
    series = []
    for index, d in enumerate(timed):
        style = 5 if d.alarm else 3 if d.word == "faster" else 0
        name = f"{d.engine}, {d.what}"
        one = Series(
            name=name,
            x=(float(index + 1),),
            y=(100 * d.change,),
            style=style,
            mark="points",
            low=(100 * d.low,),
            high=(100 * d.high,),
        )
        series.append(one)
    return chart(
        "Change in time",
        f"NEW over OLD, with 95 % intervals, in the order of the table below; above 0 is slower. The gate is {tolerance:.0%}.",
        series,
        Axis(label="comparison", ticks=tuple(float(i + 1) for i in range(len(timed)))),
        Axis(label="change of the time for a call, %", low=-100 * tolerance, high=100 * tolerance),
    )


def _pairs(old: Results, new: Results) -> list[tuple[Measurement, Measurement]]:
    before = {(m.engine, m.batch, m.clock): m for m in latencies(old)}
    return [(before[key], m) for m in latencies(new) if (key := (m.engine, m.batch, m.clock)) in before]


def _latency(old: Results, new: Results) -> list[Element]:
    pairs = _pairs(old, new)
    if not pairs:
        return [tag("p", "The two files share no timed engine.", class_="absent")]
    drawings = []
    for before, after in pairs:
        lines = [_distribution("OLD", before, 0), _distribution("NEW", after, 1)]
        about = "Each line climbs from its fastest call to its slowest: the further left and the steeper, the better."
        axes = (Axis(label="milliseconds a call", log=_wide(lines)), Axis(label="share of calls, %", low=0, high=100))
        drawings.append(chart(f"{after.engine}, batch {after.batch}", about, lines, *axes))
    return [tag("div", drawings, class_="pair")]


def _wide(lines: Sequence[Series]) -> bool:
    return max(max(line.x) for line in lines) > 8 * min(min(line.x) for line in lines)


def _distribution(name: str, measurement: Measurement, style: int) -> Series:
    shares = np.linspace(0, 1, min(POINTS, max(2, len(measurement.seconds))))
    values = np.quantile(measurement.seconds, shares, method="inverted_cdf") * 1e3
    return Series(name=name, x=tuple(values.tolist()), y=tuple((shares * 100).tolist()), style=style, mark="step")


def _figures(old: Results, new: Results) -> Element:
    body: list[list[Child]] = []
    for before, after in _pairs(old, new):
        for side, m in (("OLD", before), ("NEW", after)):
            cells = [_percentile(m, 0.5), _percentile(m, 0.99)]
            found = intervals.throughput(m)
            cells.append("-" if found is None else f"{rate(found.value)} {span(found[1:], rate)}")
            flags = ", ".join(sorted({flag.trouble for flag in m.flags})) or "-"
            body.append([f"{m.engine}, {side}", str(m.batch), *cells, flags])
    return grid(["engine", "batch", "p50 ms", "p99 ms", "img/s", "flags"], body, text=(0, 5))


def _percentile(measurement: Measurement, q: float) -> str:
    found = intervals.percentile(measurement, q)
    return "-" if found is None else f"{milliseconds(1e3 * found.value)} {span([1e3 * end for end in found[1:]], milliseconds)}"


def _notes(found: Comparison) -> list[Element]:
    if not found.notes:
        return [tag("p", "Both were measured in the same way, with the same versions.")]
    return [tag("ul", [tag("li", note) for note in found.notes])]


def _environment(old: Environment, new: Environment) -> Element:
    facts = [("device", old.device, new.device), ("system", old.system, new.system), ("Python", old.python, new.python)]
    facts += [("governor", old.governor or "not told", new.governor or "not told")]
    names = sorted({*old.versions, *new.versions})
    facts += [(name, old.versions.get(name, "none"), new.versions.get(name, "none")) for name in names]
    body: list[list[Child]] = [[name, a, b if a == b else tag("strong", b)] for name, a, b in facts]
    return grid(["machine or library", "OLD", "NEW"], body, text=(0, 1, 2))
