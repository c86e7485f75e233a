"""Why, for a terminal: the layers that cost most, then the remedies."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from toolkit.report.listing import Listing, shorten
from toolkit.why.result import LayerLoss, Remedy, Why

LETTERS = 26  # of a layer's name
SHOWN = 15  # layers in the terminal; the page and --json have them all
WORTH = 0.3  # dB below which nothing counts as gained
NOTE = (
    "loss: the layer's share of the noise in the logits. born: SNR in dB with only the noise that this layer adds; inherited: "
    "with only the noise of its inputs; output: with both. w c r: how much of the added noise comes from weights, clipping and "
    "rounding of activations. channel: the one with the most noise."
)


def why_table(found: Why, *, verbose: bool = False) -> RenderableType:
    """The headline, the layers (all of them if `verbose`), the worst images, the remedies, the notes."""
    parts: list[RenderableType] = [Text(headline(found), style="bold"), _layers(found, len(found.layers) if verbose else SHOWN)]
    if found.worst_images:
        parts.append(Text("worst images: " + ", ".join(f"{w.name} {decibels(w.snr)}" for w in found.worst_images[:3])))
    parts.append(Text("What to do", style="bold"))
    parts += [Text(line) for line in (*advice(found), *baselines(found))]
    parts += [Text(f"note: {note}", style="dim") for note in found.notes]
    return Group(*parts)


def headline(found: Why) -> str:
    """The whole loss in a line."""
    kernels = found.emulated - found.snr
    rest = f"; its graph alone would give {found.emulated:.1f} dB, so the rest is lost in its kernels" if kernels > 1 else ""
    kind = "logits"
    if found.softmax:
        kind, rest = "probabilities", f"; what its Softmax reads has {found.emulated:.1f} dB in its graph"
    what = f"{found.engine} ({found.precision}, {found.target}): its {kind} have an SNR of {found.snr:.1f} dB against FP32"
    return f"{what} on {found.images} images; {found.agreement:.1%} of the answers agree{rest}"


def _layers(found: Why, most: int) -> Listing:
    ranked = found.ranked
    names = shorten([layer.name for layer in ranked[:most]], LETTERS)
    body = []
    for name, layer in zip(names, ranked, strict=False):
        time = "" if layer.time is None else f"{layer.time:.0%}"
        worst = "" if not layer.channels else f"{layer.channels[0].name}: {layer.channels[0].share:.0%}"
        ratios = [decibels(value) for value in (layer.born, layer.inherited, layer.snr)]
        body.append([name, layer.precision, f"{layer.share:.1%}", *ratios, causes(layer), time, worst])
    if len(ranked) > most:
        rest = sum(layer.share for layer in ranked[most:])
        body.append([f"{len(ranked) - most} more layers", "", f"{rest:.1%}", *[""] * 6])
    head = ("layer", "", "loss", "born", "inherited", "output", "w c r %", "time", "channel")
    return Listing(head, body, text=(0, 1), note=NOTE)


def advice(found: Why) -> list[str]:
    """A line a remedy, the best first; where none gained enough, what was tried."""
    lines = [f"{index}. {remedy_line(remedy)}" for index, remedy in enumerate(found.remedies, 1)]
    if lines or not found.tried:
        return lines or ["No remedy was tried."]
    best = found.tried[0]
    return [f"None of {len(found.tried)} remedies gained {WORTH} dB or more; the best was {remedy_line(best)}"]


def baselines(found: Why) -> list[str]:
    """Why a remedy's dB "before" is not the headline's: they are of different images."""
    tried = [*found.remedies, *found.tried]
    if not tried:
        return []
    before, whole = tried[0].snr[0], found.emulated if found.softmax else found.snr
    return [
        f"Remedies are checked on {found.proof_images} other images, where the engine has {before:.1f} dB without one; the "
        f"{whole:.1f} dB of the first line are over the {found.images} images that were analyzed."
    ]


def remedy_line(remedy: Remedy) -> str:
    """What to write, what it gains on which evidence, and why."""
    before, after = remedy.snr
    time = "same time" if remedy.time is None else f"{remedy.time - 1:+.0%} time {'measured' if remedy.measured else 'predicted'}"
    agree = f"agreement {remedy.agreement[0]:.1%} -> {remedy.agreement[1]:.1%}"
    return f"{remedy.what}  [{before:.1f} -> {after:.1f} dB, {agree}, {time}; {remedy.why}]"


def causes(layer: LayerLoss) -> str:
    """Weights, clipping, rounding in per cent; what a layer in FP32 has, nothing."""
    if layer.cause == "overflow":
        return f"overflow {layer.peak:.3g}"
    return "" if layer.born is None else f"{layer.weights * 100:.0f} {layer.clipping * 100:.0f} {layer.rounding * 100:.0f}"


def decibels(value: float | None) -> str:
    """A ratio in dB; none where nothing is lost."""
    return "-" if value is None else "not finite" if value <= -120 else f"{value:.1f}"


def shortened(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
