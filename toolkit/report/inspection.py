"""Inspection: an engine's card, its findings and its ranges, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from math import log1p

from rich.console import Group, RenderableType
from rich.text import Text

from toolkit.calibration.ranges import Ranges, TensorRange
from toolkit.engine.inspection import Inspection
from toolkit.manifest import Baseline, Manifest
from toolkit.report.listing import Listing
from toolkit.types import Finding

PER_CHARACTER = 2  # of the 64 bars that ranges hold
LEVELS = " ▁▂▃▄▅▆▇█"
MARKS = {"minmax": "m", "entropy": "e", "mse": "s", "percentile-99.9": "1", "percentile-99.99": "2", "percentile-99.999": "3"}
LEGEND = "bars: how many magnitudes, logarithmic, from 0 to the maximum; below them where each method cuts: " + ", ".join(
    f"{mark} {name}" for name, mark in MARKS.items()
)


def inspection(found: Inspection) -> RenderableType:
    """The card, the layers, the findings, and a histogram a tensor with every method's threshold."""
    parts: list[RenderableType] = [
        _card(found.manifest),
        Text(f"graph: {', '.join(f'{n} {op}' for op, n in found.layers.items())}"),
    ]
    parts.append(_findings(found.findings))
    if found.proof is not None:
        verdict, where = found.proof.verdict, f" on {found.proof.device}" if found.proof.device else ""
        parts.append(Text(f"when it was built: {verdict.text} ({found.proof.how}{where})"))
    parts += [Text(remark, style="yellow") for remark in found.remarks]
    if found.ranges is not None:
        parts += [_histograms(found.ranges), Text(LEGEND, style="dim")]
    return Group(*parts)


def _card(manifest: Manifest) -> Text:
    card = Text(manifest.name, style="bold")
    for name, value in facts(manifest):
        card.append(Text(f"\n{name:<20} {value}", style=""))
    return card


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    """What an engine is and was made of, a line each."""
    found = [("target", f"{manifest.target}: {manifest.device}"), ("precision", manifest.precision)]
    for kind, specs in (("input", manifest.inputs), ("output", manifest.outputs)):
        found += [(kind, f"{spec.name} {spec.dtype} [{', '.join(map(str, spec.shape))}]") for spec in specs]
    found.append(("profiles", ", ".join(f"{p.min}..{p.max}, best at {p.opt}" for p in manifest.profiles)))
    if (kept := manifest.baseline) is not None:
        found.append(("baseline", _baseline(kept)))
    found.append(("versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())))
    found.append(("settings", ", ".join(f"{name} = {value}" for name, value in manifest.settings.items())))
    found += [(f"sha256 {name}", value) for name, value in manifest.hashes.items()]
    return found + [("note", note) for note in manifest.notes]


def _baseline(kept: Baseline) -> str:
    """What the engine keeps of its reference, in a line."""
    parts = [f"{kept.name}, {kept.library}" if kept.library else kept.name]
    if kept.top1 is not None:
        parts.append(f"top-1 {kept.top1:.2%} on {kept.images} images")
    elif kept.images:
        parts.append(f"answers to {kept.images} images")
    if kept.latency is not None:
        parts.append(f"{1e3 * kept.latency:.3g} ms at batch 1 on {kept.device}")
    return "; ".join(parts)


def _findings(findings: Sequence[Finding]) -> RenderableType:
    if not findings:
        return Text("placement: nothing to improve", style="green")
    body = [[finding.rule, finding.node, finding.what, finding.fix] for finding in findings]
    return Listing(("rule", "node", "what", "fix"), body, title="placement")


def _histograms(ranges: Ranges) -> Listing:
    body = [[name, f"{one.min:.4g}", f"{one.max:.4g}", f"{bars(one)}\n{cuts(one)}"] for name, one in ranges.tensors.items()]
    return Listing(("tensor", "min", "max", "magnitudes"), body, text=(0, 3), title=f"ranges over {ranges.images} images")


def bars(tensor: TensorRange) -> str:
    """A character a bar, its height the logarithm of the count."""
    counts = [sum(tensor.bars[i : i + PER_CHARACTER]) for i in range(0, len(tensor.bars), PER_CHARACTER)]
    most = log1p(max(counts, default=0))
    return "".join(LEVELS[0 if n == 0 else max(1, round(log1p(n) / most * (len(LEVELS) - 1)))] for n in counts)


def cuts(tensor: TensorRange) -> str:
    """A line as long as the bars, with each method's mark under the bar that holds its threshold."""
    line = [" "] * (len(tensor.bars) // PER_CHARACTER)
    peak = max(-tensor.min, tensor.max)
    for name, mark in MARKS.items():
        if line and peak > 0 and name in tensor.thresholds:
            line[min(int(min(tensor.thresholds[name] / peak, 1.0) * len(line)), len(line) - 1)] = mark
    return "".join(line)
