"""`toolkit migrate`: from TensorRT 10 and before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.app import Json, app, finish, out, print_json


@app.command()
def migrate(
    sources: Annotated[list[str], typer.Argument(help="a calibration cache, a trtexec line in quotes, or a file with one")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the recipe")],
    onnx: Annotated[Path | None, typer.Option(help="the ONNX file; default: the one that the trtexec line names")] = None,
    data: Annotated[Path | None, typer.Option(help="a folder of images, to judge the engine by")] = None,
    as_json: Json = False,
) -> None:
    """Turn a calibration cache and a trtexec line of TensorRT 10 and before into a recipe with the same scales."""
    from toolkit.migrate.migrate import migrate as move

    found = move(sources, output, onnx, data)
    if as_json:
        ranges = str(found.ranges) if found.ranges else None
        print_json({"recipe": str(found.recipe), "ranges": ranges, "notes": list(found.said)})
        return
    out.notes(found.said, "they are in --json")
    scales = f", with the old scales in {found.ranges}" if found.ranges else ""
    finish(f"{found.recipe}{scales}. Next: toolkit build {found.recipe}")
