"""`toolkit parity`: what another decoder or resize would change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.app import UNDECIDED, EnginePath, Json, app, finish, out, print_json
from toolkit.errors import BackendError

if TYPE_CHECKING:
    from toolkit.decoding.result import Parity


@app.command()
def parity(
    engine: EnginePath,
    data: Annotated[str | None, typer.Option(help="a folder of pictures; default: those of the recipe's [accept]")] = None,
    as_json: Json = False,
    only: Annotated[str, typer.Option(help="the libraries to try, with commas: opencv,torchvision,pillow,onnx")] = "",
) -> None:
    """How many answers change if the app decodes or resizes in another way; with --only, exit code as of `accuracy`."""
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
        finish(_state(found, engine))
    if chosen:
        _require_accepted(found)


def _state(found: Parity, engine: Path) -> str:
    """The last line: what [accept] says of the ways, and what to do next."""
    if refused := found.having("refused"):
        advice = "Let the app filter as Pillow does, or judge the engine on the pictures as the app prepares them"
        return f"not within [accept]: {', '.join(refused)}. {advice}"
    if open_ := found.having("undecided"):
        return (
            f"cannot tell with these pictures: {', '.join(open_)}. Next: toolkit parity {engine} --data DIR, with more pictures"
        )
    return f"every way that was tried is within [accept]. Next: toolkit pack {engine} -o x.engine"


def _require_accepted(found: Parity) -> None:
    """Exit code 1 where a way is refused, 3 where the pictures are too few. Raises BackendError where one could not be tried."""
    from toolkit.decoding.result import LIBRARIES

    if found.having("refused"):
        raise typer.Exit(1)
    for way, why in found.missing.items():
        raise BackendError(f"{way} cannot be tried: {why}", remedy=LIBRARIES)
    if found.having("undecided"):
        raise typer.Exit(UNDECIDED)
