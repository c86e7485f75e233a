"""Diff: two engines, graphs or recipes side by side, for a terminal and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from rich.console import Group, RenderableType
from rich.text import Text

from toolkit.diff.result import Diff, LayerDiff
from toolkit.report.frame import frame, section
from toolkit.report.grid import grid
from toolkit.report.listing import Listing, shorten
from toolkit.report.markup import Child, tag
from toolkit.report.why import LETTERS, decibels, shortened

SHOWN = 30  # layers in the terminal; the page and --json have them all
COLUMNS = ("layer", "operator", "A", "B", "scale A", "scale B", "weights dB", "scaled", "result dB", "scaled")
NOTE = (
    "dB: B against A, on the same images; = where nothing differs. scaled: once each channel of B has its best scale and offset, "
    "so that what equalization changes does not count."
)


def diff_table(found: Diff) -> RenderableType:
    """The headline, the facts, the layers that differ."""
    parts: list[RenderableType] = [Text(headline(found), style="bold"), *(Text(line) for line in facts(found))]
    layers = _layers(found)
    if layers:
        body = []
        names = shorten([layer.name for layer in layers[:SHOWN]], LETTERS)
        for name, layer in zip(names, layers, strict=False):
            _, _, a, b, scale_a, scale_b, _, weights, result, scaled = _cells(layer)
            body.append([name, _both(a, b), _both(scale_a, scale_b), weights, result, scaled])
        if len(layers) > SHOWN:
            body.append([f"{len(layers) - SHOWN} more layers differ", *[""] * 5])
        parts.append(Listing(("layer", "precision", "scale", "weights", "result", "scaled"), body, text=(0,), note=NOTE))
    parts += [Text(f"note: {note}", style="dim") for note in found.notes]
    return Group(*parts)


def diff_page(found: Diff) -> str:
    """One HTML file: opens offline, prints, in light and dark."""
    changes: list[list[Child]] = [[change.key, change.a or "-", change.b or "-"] for change in found.recipe]
    operators: list[list[Child]] = [[op, str(a), str(b)] for op, a, b in found.operators]
    layers: list[list[Child]] = [[*_cells(layer)] for layer in found.layers]
    sections = [
        section("facts", "In short", [tag("ul", [tag("li", line) for line in (*facts(found), *found.notes)])]),
        section("recipe", "Recipe and settings", [_table(("key", "A", "B"), changes, (0, 1, 2), "The recipes are the same.")]),
        section("nodes", "Operators", [_table(("operator", "A", "B"), operators, (0,), "Both have the same."), *_only(found)]),
        section("layers", "Layer by layer", [_table(COLUMNS, layers, (0, 1, 2, 3), "No layer of one is in the other."), _note()]),
    ]
    sides = zip("AB", found.names, found.kinds, found.targets, strict=True)
    line = " · ".join(f"{side}: {name} ({' '.join(filter(None, (kind, target)))})" for side, name, kind, target in sides)
    return frame(f"{found.names[1]} against {found.names[0]}", headline(found), line, sections)


def headline(found: Diff) -> str:
    """The whole difference in a line."""
    a, b = found.names
    if found.same and found.kinds[0] == found.kinds[1]:
        return f"{b} is {a}, node for node and answer for answer"
    differing = sum(layer.differs for layer in found.layers)
    answers = "" if found.logits is None else f"; B's logits have {found.logits:.1f} dB against A's on {found.images} images"
    return f"{b} (B) against {a} (A): {differing} of {len(found.layers)} common layers differ{answers}"


def facts(found: Diff) -> list[str]:
    """Nodes, precisions, latency, verdict: a line each."""
    lines = [f"nodes: {found.nodes[0]} in A, {found.nodes[1]} in B{_list(found)}"]
    precisions = [_precisions(found, side) for side in (0, 1)]
    lines += [f"layers by precision: A {precisions[0]}; B {precisions[1]}"] if precisions[0] != precisions[1] else []
    if found.recipe:
        lines.append("recipe: " + "; ".join(f"{c.key} {c.a or '-'} -> {c.b or '-'}" for c in found.recipe[:8]))
    if found.latency is not None:
        x = found.latency
        span = f"[{x.interval[0]:.3f}, {x.interval[1]:.3f}]" if x.interval is not None else "(too short for an interval)"
        lines.append(f"latency at batch {x.batch}: A {x.p50[0]:.3f} ms, B {x.p50[1]:.3f} ms: {x.ratio:.3f} {span} of A's")
    if found.verdict is not None:
        lines.append(f"B compared with A: {found.verdict.state}. {found.verdict.text}")
    return lines


def _list(found: Diff) -> str:
    only = [f"{len(names)} only in {side} ({shortened(names)})" for side, names in zip("AB", found.only, strict=True) if names]
    return f"; {'; '.join(only)}" if only else ""


def _precisions(found: Diff, side: int) -> str:
    names = [layer.precision[side] for layer in found.layers]
    return ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names)))


def _layers(found: Diff) -> list[LayerDiff]:
    """Those that differ, the lowest ratio first."""
    differing = [layer for layer in found.layers if layer.differs]
    return sorted(differing, key=lambda layer: min(layer.scaled or 999.0, layer.scaled_weights or 999.0))


def _both(a: str, b: str) -> str:
    return a if a == b else f"{a} > {b}"


def _cells(layer: LayerDiff) -> list[str]:
    ratios = (layer.weights, layer.scaled_weights, layer.snr, layer.scaled)
    scales = ["-" if scale is None else f"{scale:.4g}" for scale in layer.scales]
    return [layer.name, layer.kind, *layer.precision, *scales, *("=" if value is None else decibels(value) for value in ratios)]


def _table(head: Sequence[str], body: Sequence[Sequence[Child]], text: Sequence[int], nothing: str) -> Element:
    return grid(head, body, text=text) if body else tag("p", nothing, class_="absent")


def _only(found: Diff) -> list[Element]:
    parts = []
    for side, names in zip("AB", found.only, strict=True):
        if names:
            words = tag("p", ", ".join(names))
            parts.append(tag("details", tag("summary", f"{len(names)} nodes only in {side}"), words))
    return parts


def _note() -> Element:
    return tag("p", NOTE, class_="note")
