"""Parity, for a terminal: a row a way, then the images that are answered otherwise."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolkit.decoding.result import Outcome, Parity

SHOWN = 3  # images of each way; --json has them all
NOTE = (
    "changed: answers, with the 95 % interval of their share. SNR: of the logits. levels: how far the pixels are off on average, "
    "of 255. verdict: against the engine's own decoding and resize, as [accept] says."
)


def parity_table(found: Parity) -> RenderableType:
    """The headline, the ways, the images, what was not tried."""
    head = f"{found.engine} on {found.images} images of {found.data}: what changes if pictures are decoded or resized otherwise"
    parts: list[RenderableType] = [Text(head, style="bold"), _ways(found)]
    for one in found.outcomes:
        parts += [Text(f"{one.way}: {line}") for line in _flips(one)]
    parts += [Text(f"{way}: not tried, {why}") for way, why in found.missing.items()]
    parts += [Text(f"note: {note}", style="dim") for note in (found.how, *found.remarks) if note != "measured"]
    return Group(*parts)


def _ways(found: Parity) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), caption=Text(NOTE), caption_justify="left")
    table.add_column("way", overflow="fold")
    for name in ("changed", "SNR", "levels"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for one in found.outcomes:
        low, high = one.interval
        changed = f"{one.changed} [{low:.2%}, {high:.2%}]"
        snr = "" if one.verdict.snr is None else f"{one.verdict.snr:.1f} dB"
        state = "" if one.accepted else f"{one.verdict.state}: "
        table.add_row(*map(Text, [one.way, changed, snr, f"{one.levels:.2f}", f"{state}{one.verdict.text}"]))
    return table


def _flips(one: Outcome) -> list[str]:
    lines = []
    for flip in one.flips[:SHOWN]:
        right = "" if flip.label is None else f" (is {flip.label})"
        lines.append(f"{flip.image}: {flip.before} -> {flip.after}{right}")
    return [*lines, f"and {len(one.flips) - SHOWN} more"] if len(one.flips) > SHOWN else lines
