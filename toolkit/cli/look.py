"""Commands that look and change nothing: an architecture, an engine, this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.app import EnginePath, Json, app, finish, out, print_json


@app.command()
def describe(arch: Annotated[str, typer.Argument(help="resnet18, 34, 50, 101 or 152")], as_json: Json = False) -> None:
    """Print the stages of a ResNet: blocks, output size, parameters, multiply-adds."""
    from toolkit.reference.describe import describe as stages
    from toolkit.report.description import description

    found = stages(arch)
    print_json(found) if as_json else out.print(description(found))


@app.command()
def inspect(
    engine: EnginePath,
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="also as a page: network, histograms, thresholds")] = None,
) -> None:
    """An engine's manifest, layers and ranges, and where its Q/DQ pairs could be placed better."""
    from toolkit.engine.engine import Engine
    from toolkit.insight import network
    from toolkit.report.engine_page import engine_page
    from toolkit.report.inspection import inspection
    from toolkit.report.write import write_page

    opened = Engine.open(engine)
    found = opened.inspect()
    if output is not None:
        write_page(output, engine_page(found, network(opened)))
    print_json(found) if as_json else out.print(inspection(found))
    if not as_json:
        finish(f"The page: {output}" if output is not None else f"Next: toolkit inspect {engine} -o engine.html")


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine can build and run, and the next step for what it cannot."""
    from toolkit.doctor import examine
    from toolkit.report.diagnosis import diagnosis

    rows = examine()
    print_json(rows) if as_json else out.print(diagnosis(rows))
