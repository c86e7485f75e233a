"""Histograms: what calibration saw of each tensor, and where each method would clip it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log1p
from typing import NamedTuple
from xml.etree.ElementTree import Element

from toolkit.calibration.ranges import Ranges, TensorRange
from toolkit.report.amounts import short
from toolkit.report.grid import grid
from toolkit.report.markup import Child, number, tag

WIDTH, HEIGHT, TOP, BOTTOM = 320.0, 140.0, 26.0, 16.0
MOST = 12  # tensors drawn; the table has all


class Method(NamedTuple):
    """A calibration method: its key in `thresholds`, its mark in the drawing, and its style."""

    key: str
    mark: str
    style: int


METHODS = (
    Method("minmax", "m", 0), Method("entropy", "e", 1), Method("mse", "s", 2), Method("percentile-99.9", "1", 3),
    Method("percentile-99.99", "2", 4), Method("percentile-99.999", "3", 5),
)  # fmt: skip


def histograms(ranges: Ranges, used: str = "") -> list[Element]:
    """The tensors on which the methods differ most, drawn, and every threshold as a table. `used`: the method that was taken."""
    known = {name: one for name, one in ranges.tensors.items() if any(one.bars)}
    if not known:
        return [tag("p", "These ranges hold no histograms.", class_="absent")]
    ordered = sorted(known, key=lambda name: -spread(known[name]))
    taken = f" This engine was scaled by {used}." if used else ""
    about = (
        f"How many magnitudes of each size {ranges.images} images gave, on a logarithmic scale, from 0 to the largest. A line is "
        f"where a method would clip: values right of it are cut; the further left it is, the finer the steps below it.{taken}"
    )
    legend = [tag("li", tag("b", method.mark, class_=f"s{method.style}"), tag("span", method.key)) for method in METHODS]
    drawn = [tag("li", _drawing(name, known[name]), tag("span", name)) for name in ordered[:MOST]]
    first = f"The {len(drawn)} of {len(known)} tensors on which the methods differ most."
    return [
        tag("p", about),
        tag("ul", legend, class_="legend"),
        tag("p", first, class_="note"),
        tag("ul", drawn, class_="histograms"),
        tag("details", tag("summary", f"The thresholds of all {len(known)} tensors"), _table(known, ordered)),
    ]


def spread(tensor: TensorRange) -> float:
    """The largest threshold over the smallest."""
    found = [value for method in METHODS if (value := tensor.thresholds.get(method.key, 0.0)) > 0]
    return max(found) / min(found) if found else 1.0


def _drawing(name: str, tensor: TensorRange) -> Element:
    peak = max(-tensor.min, tensor.max) or 1.0
    most = log1p(max(tensor.bars)) or 1.0
    floor, step = HEIGHT - BOTTOM, WIDTH / len(tensor.bars)
    path = f"M0 {number(floor)}"
    for count in tensor.bars:
        path += f"V{number(floor - log1p(count) / most * (floor - TOP))}h{number(step)}"
    cuts = [(method, tensor.thresholds[method.key]) for method in METHODS if method.key in tensor.thresholds]
    said = ", ".join(f"{method.key} {short(value)}" for method, value in cuts)
    return tag(
        "svg",
        tag("title", f"{name}: {said}"),
        tag("path", d=f"{path}V{number(floor)}z", class_="bars"),
        [_cut(method, value / peak * WIDTH) for method, value in cuts],
        tag("text", "0", x=0.0, y=HEIGHT - 3),
        tag("text", short(peak), x=WIDTH, y=HEIGHT - 3, text_anchor="end"),
        viewBox=f"0 0 {number(WIDTH)} {number(HEIGHT)}",
        role="img",
        aria_label=f"Histogram of {name}, {short(tensor.min)} to {short(tensor.max)}. Thresholds: {said}",
    )


def _cut(method: Method, at: float) -> Element:
    x = min(max(at, 1.0), WIDTH - 1)
    line = tag("path", d=f"M{number(x)} {number(TOP - 4)}V{number(HEIGHT - BOTTOM)}", class_="line")
    y = TOP - 6 - 7 * (method.style % 2)  # neighbors often fall together: their marks stand one above the other
    return tag(
        "g",
        tag("title", method.key),
        line,
        tag("text", method.mark, x=x, y=y, text_anchor="end" if x > WIDTH - 6 else "middle"),
        class_=f"cut s{method.style}",
    )


def _table(known: Mapping[str, TensorRange], ordered: Sequence[str]) -> Element:
    body: list[list[Child]] = []
    for name in ordered:
        one = known[name]
        cells = [short(one.thresholds[m.key]) if m.key in one.thresholds else "-" for m in METHODS]
        body.append([name, short(one.min), short(one.max), *cells, f"{spread(one):.2f}x"])
    return grid(["tensor", "min", "max", *(m.key for m in METHODS), "largest over smallest"], body)
