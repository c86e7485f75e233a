"""`toolkit migrate`: from TensorRT 10 and before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.app import app, out


@app.command()
def migrate(
    sources: Annotated[list[str], typer.Argument(help="a calibration cache, a trtexec line in quotes, or a file with one")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the recipe")],
    onnx: Annotated[Path | None, typer.Option(help="the ONNX file; absent: what the trtexec line names")] = None,
    data: Annotated[Path | None, typer.Option(help="a folder of images, to judge the engine by")] = None,
) -> None:
    """A calibration cache and a trtexec line of TensorRT 10 and before become a recipe with the same scales."""
    from toolkit.migrate.migrate import migrate as move

    found = move(sources, output, onnx, data)
    out.print(f"{found.recipe}" + (f", with the old scales in {found.ranges}" if found.ranges else ""), highlight=False)
    for remark in found.said:
        out.print(f"  {remark}", highlight=False)
    out.print(f"Build it: toolkit build {found.recipe}", highlight=False)
