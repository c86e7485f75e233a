"""The stage table of a ResNet, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:  # the room of the reference brings torch with it
    from toolkit.reference.describe import Description


def description(found: Description) -> Table:
    """The stages as a rich table, with the totals below."""
    height, width = found.size
    table = Table(title=f"{found.arch} ({found.version}), input {height} x {width}", show_footer=True)
    table.add_column("stage", footer="total")
    table.add_column("blocks")
    table.add_column("output", justify="right")
    table.add_column("parameters", justify="right", footer=f"{found.parameters / 1e6:.2f} M")
    table.add_column("MACs", justify="right", footer=f"{found.macs / 1e9:.2f} G")
    for stage in found.stages:
        shape = " x ".join(map(str, stage.output))
        table.add_row(stage.name, stage.blocks, shape, f"{stage.parameters / 1e6:.3f} M", f"{stage.macs / 1e9:.3f} G")
    return table
