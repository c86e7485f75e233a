"""`toolkit migrate`: from TensorRT 10 and before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.app import Json, app, finish, out, place, plain, print_json

SOURCES = "a calibration cache, a line of trtexec or Polygraphy in quotes, a builder script, or a file with one"


@app.command()
def migrate(
    sources: Annotated[list[str], typer.Argument(help=SOURCES)],
    output: Annotated[Path, typer.Option("-o", "--output", callback=place, help="the recipe")],
    onnx: Annotated[Path | None, typer.Option(help="the ONNX file; default: the one that the line or the script names")] = None,
    data: Annotated[Path | None, typer.Option(help="a folder of images, to judge the engine and its old scales by")] = None,
    proof: Annotated[bool, typer.Option("--proof/--no-proof", help="with a cache and images: old scales against new")] = True,
    as_json: Json = False,
) -> None:
    """Turn a calibration cache, command line or builder script of TensorRT 10 and before into a recipe with the same scales."""
    from toolkit.cli.progress import stages
    from toolkit.migrate.migrate import migrate as move

    with stages() as stage:
        found = move(sources, output, onnx, data, proof=proof, stage=stage)
    weighed = found.weighed
    if as_json:
        ranges = str(found.ranges) if found.ranges else None
        verdict = None if weighed is None else {key: value for key, value in plain(weighed).items() if key != "recipe"}
        told = {"recipe": str(found.recipe), "ranges": ranges, "notes": list(found.said), "scales": verdict}
        beside = {"recalibrated": str(found.recalibrated) if found.recalibrated else None}
        print_json({**told, **beside, "awaited": str(found.awaited) if found.awaited else None})
        return
    out.notes(found.said, "they are in --json")
    if weighed is not None:
        out.print(weighed.text, highlight=False)
    scales = f", with the old scales in {found.ranges}" if found.ranges else ""
    also = f"; {found.recalibrated} calibrates again" if found.recalibrated else ""
    first = f"put calibration images into {found.awaited}, then " if found.awaited else ""
    finish(f"{found.recipe}{scales}{also}. Next: {first}{found.command}")
