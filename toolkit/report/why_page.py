"""Why, as a page: the picture of the network, every layer with its causes, the remedies."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from toolkit.report.frame import frame, section
from toolkit.report.grid import bar, grid
from toolkit.report.markup import Child, tag
from toolkit.report.network import Box, network
from toolkit.report.why import NOTE, baselines, causes, decibels, headline
from toolkit.why.result import LayerLoss, Remedy, Why, Worst

PICTURE = (
    "The box: the layer's part of the loss at the logits; the strip at its foot: its part of the time; a stronger color is more. "
    "Dotted: it computes in floating point."
)
DETAILED = 12  # layers whose channels and images are listed


def why_page(found: Why) -> str:
    """One HTML file: opens offline, prints, in light and dark."""
    sections = [
        tag("section", tag("h2", "The loss"), tag("p", f"{headline(found)}."), _notes(found), id="loss"),
        section("network", "Layers that lose the most", [network(_boxes(found), PICTURE)]),
        section("remedies", "Remedies", _remedies(found)),
        section("layers", "Layer by layer", [_layers(found.ranked)]),
        section("worst", "Channels and images that suffer most", _worst(found)),
    ]
    line = (
        f"{found.precision} for {found.target} · {found.images} images analyzed, {found.proof_images} others to check remedies on"
    )
    return frame(f"Why {found.engine} loses accuracy", f"Where {found.engine} loses accuracy", line, sections)


def _notes(found: Why) -> Element | None:
    return tag("ul", [tag("li", note) for note in found.notes]) if found.notes else None


def _boxes(found: Why) -> list[Box]:
    reads: dict[str, list[str]] = {}
    for source, reader in found.edges:
        reads.setdefault(reader, []).append(source)
    return [
        Box(name=x.name, title=_title(x), reads=tuple(reads.get(x.name, ())), noise=x.share, time=x.time, precision=x.precision)
        for x in found.layers
    ]


def _title(layer: LayerLoss) -> str:
    time = "" if layer.time is None else f", {layer.time:.1%} of the time"
    cause = f", mostly {layer.cause}" if layer.cause else ""
    return f"{layer.name} ({layer.kind}, {layer.precision}): {layer.share:.1%} of the loss{cause}{time}"


def _remedies(found: Why) -> list[Element]:
    if not found.remedies and not found.tried:
        return [tag("p", "No remedy was tried.", class_="absent")]
    parts = [tag("p", " ".join([*baselines(found), "The first is what --write puts into a recipe."]))]
    head = ("change of the recipe", "wins", "dB", "agreement", "time", "because")
    if found.remedies:
        parts.append(grid(head, [_remedy(remedy) for remedy in found.remedies], text=(0, 4, 5)))
    if found.tried:
        rest = grid(head, [_remedy(remedy) for remedy in found.tried], text=(0, 4, 5))
        parts.append(tag("details", tag("summary", f"{len(found.tried)} more that gained nothing"), rest))
    return parts


def _remedy(remedy: Remedy) -> list[Child]:
    time = "the same" if remedy.time is None else f"{remedy.time - 1:+.1%}, {'measured' if remedy.measured else 'predicted'}"
    agreement = f"{remedy.agreement[0]:.1%} → {remedy.agreement[1]:.1%}"
    ratios = f"{remedy.snr[0]:.1f} → {remedy.snr[1]:.1f}"
    return [tag("code", remedy.what), f"{remedy.gain:+.1f}", ratios, agreement, time, remedy.why]


def _layers(ranked: Sequence[LayerLoss]) -> Element:
    most = max((layer.share for layer in ranked), default=0.0) or 1.0
    head = ("layer", "operator", "precision", "loss", "drawn", "born", "inherited", "output", "alone", "w c r %", "work", "time")
    body: list[list[Child]] = [
        [
            x.name, x.kind, x.precision, f"{x.share:.1%}", bar(x.share / most), decibels(x.born), decibels(x.inherited),
            decibels(x.snr), decibels(x.alone), causes(x), f"{x.work:.1%}", "-" if x.time is None else f"{x.time:.1%}",
        ]
        for x in ranked
    ]  # fmt: skip
    note = f"{NOTE} alone: SNR of the logits where only this layer is narrowed."
    return grid(head, body, text=(0, 1, 2, 4), note=note)


def _worst(found: Why) -> list[Element]:
    parts: list[Element] = []
    if found.worst_images:
        body: list[list[Child]] = [[w.name, decibels(w.snr), f"{w.share:.0%}"] for w in found.worst_images]
        parts.append(grid(("image", "dB of its logits", "of the noise"), body, title="The images that suffer most"))
    for layer in found.ranked[:DETAILED]:
        if layer.channels:
            rows: list[list[Child]] = [[f"channel {w.name}", decibels(w.snr), f"{w.share:.0%}"] for w in layer.channels]
            rows += [[w.name, decibels(w.snr), f"{w.share:.0%}"] for w in layer.images]
            table = grid(("channel or image", "dB", "of the layer's noise"), rows)
            parts.append(tag("details", tag("summary", f"{layer.name}: {_first(layer.channels)}"), table))
    return parts or [tag("p", "Nothing is lost.", class_="absent")]


def _first(channels: Sequence[Worst]) -> str:
    return f"channel {channels[0].name} has {channels[0].share:.0%} of the noise"
