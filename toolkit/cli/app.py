"""What every command shares: the application, the two consoles, the arguments that recur, and JSON for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.cli.console import PlainConsole

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Takes a ResNet, or any ONNX image classifier, to measured engines.",
)
out, err = PlainConsole(), PlainConsole(stderr=True)

RecipePath = Annotated[Path, typer.Argument(help="a recipe, such as engines/fashion-resnet18-int8.toml")]
EnginePath = Annotated[Path, typer.Argument(help="an engine's folder, such as engines/built/fashion-resnet18-int8")]
UNDECIDED = 3  # exit code of a verdict that cannot be told with these images
Json = Annotated[bool, typer.Option("--json", help="for machines")]


def _version(wanted: bool) -> None:
    if wanted:
        import toolkit

        print(f"resnet-deploy {toolkit.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of a failure")] = False,
    version: Annotated[bool, typer.Option("--version", help="print the version", is_eager=True, callback=_version)] = False,
) -> None:
    """Options that stand before the command."""


def print_json(value: Any) -> None:
    print(json.dumps(plain(value), indent=1))


def plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)
