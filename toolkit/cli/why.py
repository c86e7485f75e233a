"""Commands that explain: where an engine loses accuracy, and in what two differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.app import EnginePath, Json, app, finish, out, print_json

if TYPE_CHECKING:
    from toolkit.why import Why

Page = Annotated[Path | None, typer.Option("-o", "--output", help="also as a page: one file, opens offline")]
Data = Annotated[str | None, typer.Option(help="images in place of those that the recipe names")]
Side = Annotated[Path, typer.Argument(help="an engine's folder, an .onnx file or a recipe")]


@app.command()
def why(
    engine: EnginePath,
    as_json: Json = False,
    write: Annotated[Path | None, typer.Option("--write", help="the first remedy as a recipe")] = None,
    output: Page = None,
    data: Data = None,
    remedies: Annotated[bool, typer.Option(help="try what could win accuracy back")] = True,
) -> None:
    """Where INT8 or FP16 loses accuracy, layer by layer, and what wins it back, each remedy proven by a run."""
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
    return f"Next: toolkit why {engine} --write mended.toml" if found.remedies else f"Next: toolkit accuracy {engine}"


@app.command()
def diff(
    a: Side,
    b: Side,
    as_json: Json = False,
    output: Page = None,
    data: Data = None,
    seconds: Annotated[float, typer.Option(min=0, help="of latency, for both together; 0 leaves it out")] = 4.0,
) -> None:
    """In what B differs from A: nodes, precisions, scales, weights, tensors, latency, answers."""
    from toolkit.cli.progress import stages
    from toolkit.diff import diff as compare
    from toolkit.report.diff import diff_page, diff_table
    from toolkit.report.write import write_page

    with stages() as stage:
        found = compare(a, b, data=data, seconds=seconds, stage=stage)
    if output is not None:
        write_page(output, diff_page(found))
    print_json(found) if as_json else out.print(diff_table(found))
    if output is not None and not as_json:
        finish(f"The page: {output}")
