"""`toolkit parity`: what another decoder or resize would change."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.app import EnginePath, Json, app, finish, out, print_json


@app.command()
def parity(
    engine: EnginePath,
    data: Annotated[str | None, typer.Option(help="a folder of pictures; default: those of the recipe's [accept]")] = None,
    as_json: Json = False,
    only: Annotated[str, typer.Option(help="the libraries to try, with commas: opencv,torchvision,pillow,onnx")] = "",
) -> None:
    """How many answers change if the app decodes or resizes in another way; with --only, exit code 1 where one is refused."""
    from toolkit.cli.progress import stages
    from toolkit.decoding import parity as compare
    from toolkit.report.parity import parity_table

    chosen = [name.strip() for name in only.split(",") if name.strip()]
    with stages() as stage:
        found = compare(engine, data=data, only=chosen, stage=stage)
    if as_json:
        print_json(found)
    else:
        out.print(parity_table(found))
        refused = [one.way for one in found.outcomes if not one.accepted]
        state = f"not within [accept]: {', '.join(refused)}" if refused else "every way that was tried is within [accept]"
        advice = "Let the app filter as Pillow does, or judge the engine on the pictures as the app prepares them"
        more = advice if refused else f"Next: toolkit pack {engine} -o x.engine"
        finish(f"{state}. {more}")
    if chosen and not all(one.accepted for one in found.outcomes):
        raise typer.Exit(1)
