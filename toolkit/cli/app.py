"""What every command shares: the application, the two consoles, the arguments that recur, and JSON for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from toolkit.cli.console import PlainConsole
from toolkit.cli.guide import App

app = App(
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Quantize and deploy a ResNet or any ONNX image classifier: calibrated, compared and measured engines.",
    epilog="First steps: toolkit doctor; toolkit build engines/fashion-resnet18-int8.toml; toolkit COMMAND --help",
)
out, err = PlainConsole(), PlainConsole(stderr=True)

RecipePath = Annotated[Path, typer.Argument(help="a recipe, such as engines/fashion-resnet18-int8.toml")]
EnginePath = Annotated[Path, typer.Argument(help="an engine's folder, such as engines/built/fashion-resnet18-int8")]
EVERYWHERE = "Before or after any command"
UNDECIDED = 3  # exit code of a verdict that cannot be told with these images
Json = Annotated[bool, typer.Option("--json", help="for machines")]


def place(ctx: typer.Context, path: Path | None) -> Path | None:
    """Of an option that names the file which long work ends in: whether it can be written, before the work."""
    if path is not None and not ctx.resilient_parsing:
        from toolkit.disk.files import require_place

        require_place(path)
    return path


def _version(wanted: bool) -> None:
    if wanted:
        import toolkit

        print(f"resnet-deploy {toolkit.__version__}")
        raise typer.Exit


@app.callback()
def options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="results and errors only", rich_help_panel=EVERYWHERE)] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="every note", rich_help_panel=EVERYWHERE)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="the traceback of a failure", rich_help_panel=EVERYWHERE)] = False,
    version: Annotated[bool, typer.Option("--version", help="print the version", is_eager=True, callback=_version)] = False,
) -> None:
    """Options that stand before the command; the first three may stand anywhere."""


def finish(line: str) -> None:
    """The last line: what a person wants to know, and the next command."""
    out.print(Text(line, style="bold"))


def following(command: str, *targets: str) -> str:
    """The next command with engines for these targets; one that needs a GPU says so."""
    from toolkit.types import ON_CPU

    return f"Next{'' if set(targets) <= set(ON_CPU) else ', on a machine with its GPU'}: {command}"


def print_json(value: Any) -> None:
    print(json.dumps(plain(value), indent=1))


def plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)
