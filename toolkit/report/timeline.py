"""Timeline: what the machine did while it was measured: clocks, load, its own speed, and when engines were reopened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element

import numpy as np

from toolkit.harness.conditions import Moment
from toolkit.harness.results import Results
from toolkit.report.chart import Mark, Series, chart
from toolkit.report.grid import grid
from toolkit.report.markup import tag
from toolkit.report.scale import Axis

Reading = Callable[[Moment], float | None]
SHARES: tuple[tuple[str, Reading], ...] = (("other processes", lambda m: m.other), ("stolen by the host", lambda m: m.steal))
CLOCKS: tuple[tuple[str, Reading], ...] = (("CPU", lambda m: m.mhz), ("GPU", lambda m: m.gpu_mhz))
SECONDS = Axis(label="seconds from the start", low=0)


def timeline(results: Results) -> list[Element]:
    """Load, clocks and the yardstick over time, with a mark where engines were reopened or the machine was throttled."""
    moments = list(results.moments)
    runs = 1 + sum(after.at_ns < before.at_ns for before, after in pairwise(moments))
    if len(moments) < 2:
        return [tag("p", "The machine was not watched while this was measured.", class_="absent")]
    if runs > 1:
        return [tag("p", f"These are {runs} runs: report each by itself to see its timeline.", class_="absent")]
    marks = [*_launches(results), *_throttles(moments)]
    drawings = [
        _chart(
            "Load beside the bench",
            "Time that the cores spent on others; the bench's own is not drawn.",
            SHARES,
            moments,
            marks,
            100,
        ),
        _chart("Clocks", "A guest of a hypervisor often sees a constant.", CLOCKS, moments, marks, 1),
        *_yardstick(results, marks),
    ]
    return [*drawings, _table(moments), _marks(marks)]


def _chart(
    title: str,
    about: str,
    readings: Sequence[tuple[str, Reading]],
    moments: Sequence[Moment],
    marks: Sequence[Mark],
    scale: float,
) -> Element:
    series = []
    for style, (name, read) in enumerate(readings):
        points = [(m.at_ns * 1e-9, scale * value) for m in moments if (value := read(m)) is not None]
        if points:
            x, y = zip(*points, strict=True)
            series.append(Series(name=name, x=x, y=y, style=style + 1))
    unit = Axis(label="share of the cores' time, %", low=0) if scale == 100 else Axis(label="MHz")
    return chart(title, about, series, SECONDS, unit, marks=marks)


def _yardstick(results: Results, marks: Sequence[Mark]) -> list[Element]:
    """How long the fixed piece of arithmetic took beside each block, over its median."""
    found = [(b.at_ns * 1e-9, float(min(b.yardstick_ns))) for m in results.measurements for b in m.blocks if b.yardstick_ns]
    if len(found) < 2:
        return []
    found.sort()
    x, y = zip(*found, strict=True)
    usual = float(np.median(y))
    series = Series(name="time for the same arithmetic, over its median", x=x, y=tuple(v / usual for v in y), style=3)
    about = "The same piece of arithmetic, timed beside every block: where it rises, the machine itself was slower."
    return [chart("The machine's own speed", about, [series], SECONDS, Axis(label="time over the median"), marks=marks)]


def _launches(results: Results) -> list[Mark]:
    first: dict[int, int] = {}
    for measurement in results.measurements:
        for block in measurement.blocks:
            if block.launch:
                first[block.launch] = min(block.at_ns, first.get(block.launch, block.at_ns))
    return [Mark(x=at * 1e-9, name=f"engines reopened, time {launch}") for launch, at in sorted(first.items())]


def _throttles(moments: Sequence[Moment]) -> list[Mark]:
    found = []
    for before, after in pairwise(moments):
        hot = (after.cpu_throttles or 0) - (before.cpu_throttles or 0) if before.cpu_throttles is not None else 0
        why = [f"the CPU ran too hot {hot} times"] if hot > 0 else []
        why += list(after.gpu_throttles)
        if why:
            found.append(Mark(x=after.at_ns * 1e-9, name=f"throttled: {', '.join(why)}"))
    return found


def _table(moments: Sequence[Moment]) -> Element:
    def spread(values: list[float], form: str, unit: str) -> list[str]:
        if not values:
            return ["not told", "-", "-"]
        return [f"{value:{form}}{unit}" for value in (min(values), float(np.median(values)), max(values))]

    rows = [("other processes", [100 * m.other for m in moments if m.other is not None], ".1f", " %")]
    rows += [("stolen by the host", [100 * m.steal for m in moments if m.steal is not None], ".1f", " %")]
    rows += [("load, last minute", [m.load for m in moments if m.load is not None], ".2f", "")]
    rows += [("CPU clock", [m.mhz for m in moments if m.mhz is not None], ".0f", " MHz")]
    gpu = [float(m.gpu_mhz) for m in moments if m.gpu_mhz is not None]
    rows += [("GPU clock", gpu, ".0f", " MHz")] if gpu else []
    return grid(
        ["while it was measured", "least", "median", "most"], [[name, *spread(v, form, unit)] for name, v, form, unit in rows]
    )


def _marks(marks: Sequence[Mark]) -> Element:
    if not marks:
        return tag("p", "No engine was reopened, and nothing was throttled.", class_="note")
    rows = [[f"{mark.x:.1f} s", mark.name] for mark in marks]
    return tag("details", tag("summary", f"The {len(marks)} marks"), grid(["when", "what"], rows, text=(0, 1)))
