"""Commands that look and change nothing: an architecture, an engine, this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.app import EnginePath, Json, app, out, print_json


@app.command()
def describe(arch: Annotated[str, typer.Argument(help="resnet18, 34, 50, 101 or 152")], as_json: Json = False) -> None:
    """Print the stages of a ResNet: blocks, output size, parameters, multiply-adds."""
    from toolkit.reference.describe import describe as stages
    from toolkit.report.description import description

    found = stages(arch)
    print_json(found) if as_json else out.print(description(found))


@app.command()
def inspect(engine: EnginePath, as_json: Json = False) -> None:
    """An engine's manifest, layers, ranges and what its Q/DQ placement leaves to wish for."""
    from toolkit.engine.engine import Engine
    from toolkit.report.inspection import inspection

    found = Engine.open(engine).inspect()
    print_json(found) if as_json else out.print(inspection(found))


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine can build and run, and the next step for what it cannot."""
    from toolkit.doctor import examine
    from toolkit.report.diagnosis import diagnosis

    rows = examine()
    print_json(rows) if as_json else out.print(diagnosis(rows))
