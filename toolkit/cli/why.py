"""Commands that explain: where an engine loses accuracy, and how two differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.app import EnginePath, Json, app, finish, out, place, print_json

if TYPE_CHECKING:
    from toolkit.why import Why

Page = Annotated[Path | None, typer.Option("-o", "--output", callback=place, help="also as a page: one file, opens offline")]
Data = Annotated[str | None, typer.Option(help="images to use; default: those that the recipe names")]
Side = Annotated[Path, typer.Argument(help="an engine's folder, an .onnx file or a recipe")]


@app.command()
def why(
    engine: EnginePath,
    as_json: Json = False,
    write: Annotated[Path | None, typer.Option("--write", callback=place, help="write the first remedy as a recipe")] = None,
    output: Page = None,
    data: Data = None,
    remedies: Annotated[bool, typer.Option(help="try remedies, and measure each")] = True,
) -> None:
    """Where INT8 or FP16 loses accuracy, layer by layer, and remedies, each checked by a run."""
    from toolkit.cli.progress import stages
    from toolkit.report.why import why_table
    from toolkit.report.why_page import why_page
    from toolkit.report.write import write_page
    from toolkit.why import remedied
    from toolkit.why import why as explain

    with stages() as stage:
        found = explain(engine, data=data, remedies=remedies, stage=stage)
    if output is not None:
        write_page(output, why_page(found))
    print_json(found) if as_json else out.print(why_table(found, verbose=out.detail == "verbose"))
    if write is not None:
        write_page(write, remedied(found, write.absolute().parent))
    if not as_json:
        page = f"The page: {output}. " if output is not None else ""
        finish(page + (f"The first remedy: {write}. Next: toolkit build {write}" if write is not None else _next(engine, found)))


def _next(engine: Path, found: Why) -> str:
    return f"Next: toolkit why {engine} --write remedy.toml" if found.remedies else f"Next: toolkit accuracy {engine}"


@app.command()
def diff(
    a: Side,
    b: Side,
    as_json: Json = False,
    output: Page = None,
    data: Data = None,
    seconds: Annotated[float, typer.Option(min=0, help="time to measure the latency of both; 0: do not measure it")] = 4.0,
) -> None:
    """How B differs from A: nodes, precisions, scales, weights, tensors, latency, answers."""
    from toolkit.cli.progress import stages
    from toolkit.diff import diff as compare
    from toolkit.report.diff import diff_page, diff_table
    from toolkit.report.write import write_page

    with stages() as stage:
        found = compare(a, b, data=data, seconds=seconds, stage=stage)
    if output is not None:
        write_page(output, diff_page(found))
    print_json(found) if as_json else out.print(diff_table(found))
    if not as_json:
        finish(f"The page: {output}" if output is not None else f"Next: toolkit diff {a} {b} -o diff.html")
