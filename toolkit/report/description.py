"""The stage table of a ResNet, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.report.listing import Listing

if TYPE_CHECKING:  # the room of the reference brings torch with it
    from toolkit.reference.describe import Description


def description(found: Description) -> Listing:
    """The stages, with the totals below."""
    height, width = found.size
    body = [
        [s.name, s.blocks, " x ".join(map(str, s.output)), f"{s.parameters / 1e6:.3f} M", f"{s.macs / 1e9:.3f} G"]
        for s in found.stages
    ]
    body.append(["total", "", "", f"{found.parameters / 1e6:.2f} M", f"{found.macs / 1e9:.2f} G"])
    title = f"{found.arch} ({found.version}), input {height} x {width}"
    return Listing(("stage", "blocks", "output", "parameters", "MACs"), body, text=(0, 1), title=title)
