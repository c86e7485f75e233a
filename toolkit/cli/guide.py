"""Guide: the heading under which the help lists each command, and examples of it. A test compares it with the commands."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

Called = TypeVar("Called", bound=Callable[..., Any])
NARROW = 80  # columns; in fewer the tables of the boxed help cut the names of options
COLUMNS = shutil.get_terminal_size().columns
PLAIN = os.environ.get("TERM") == "dumb" or COLUMNS < NARROW  # no boxes there
SETTINGS = {"terminal_width": COLUMNS - 2} if COLUMNS < NARROW else {}  # by itself the plain help is never under 50 wide

MAKE, MEASURE, EXPLAIN, USE, HERE = "Make engines", "Measure and compare", "Explain", "Deploy", "This machine"
ENGINE = "engines/built/fashion-resnet18-int8"
RECIPE = "engines/fashion-resnet18-int8.toml"

# command -> its heading and its examples, each without the word `toolkit`
GUIDE: dict[str, tuple[str, tuple[str, ...]]] = {
    "init": (MAKE, ("init model.onnx", "init resnet50.pth --precision int8 --images calibration/ --val val/")),
    "build": (MAKE, (f"build {RECIPE}", f"build {RECIPE} --target cpu,rtx", "build m.onnx --precision int8 --images photos/")),
    "tune": (MAKE, (f"tune {RECIPE} -o tuned.toml",)),
    "finetune": (MAKE, (f"finetune {RECIPE} -o tuned/",)),
    "migrate": (MAKE, ("migrate calib.cache --onnx m.onnx --data val/ -o mine.toml", "migrate build.py -o mine.toml")),
    "export": (MAKE, (f"export {RECIPE} -o model.onnx",)),
    "calibrate": (MAKE, (f"calibrate {RECIPE} -o ranges.json",)),
    "run": (MEASURE, (f"run {ENGINE} photo.jpg", f"run {ENGINE} photos/ --json")),
    "accuracy": (MEASURE, (f"accuracy {ENGINE}", f"accuracy {ENGINE} --data val/ --json")),
    "bench": (MEASURE, ("bench engines/built/* -o results.json", f"bench {ENGINE} --quick --share mine.json")),
    "report": (MEASURE, ("report results.json -o report.html", "report results.json --why why.json --markdown report.md")),
    "compare": (MEASURE, ("compare old.json new.json", "compare old.json new.json -o compare.html")),
    "parity": (MEASURE, (f"parity {ENGINE} --data val/",)),
    "capacity": (MEASURE, ("capacity results.json --images 1e9",)),
    "why": (EXPLAIN, (f"why {ENGINE} -o why.html", f"why {ENGINE} --write remedy.toml")),
    "diff": (EXPLAIN, (f"diff engines/built/fashion-resnet18-fp32 {ENGINE}",)),
    "inspect": (EXPLAIN, (f"inspect {ENGINE}", f"inspect {ENGINE} -o engine.html")),
    "describe": (EXPLAIN, ("describe resnet50",)),
    "pack": (USE, (f"pack {ENGINE} -o mine.engine",)),
    "serve": (USE, (f"serve {ENGINE} --port 8000",)),
    "handoff": (USE, ()),
    "verify": (USE, (f"verify {ENGINE} --trusted key.pub",)),
    "upgrade": (USE, (f"upgrade {ENGINE}",)),
    "bom": (USE, (f"bom {ENGINE}",)),
    "doctor": (HERE, ("doctor",)),
    "cache": (HERE, ()),
    "handoff ort": (USE, ("handoff ort engines/built/mine-rtx -o onnx/",)),
    "handoff triton": (USE, (f"handoff triton {ENGINE} -o models/",)),
    "handoff ray": (USE, (f"handoff ray {ENGINE} -o job/",)),
    "cache dir": (HERE, ("cache dir",)),
    "cache clean": (HERE, ("cache clean",)),
}  # fmt: skip
EVERYWHERE = "Everywhere: --quiet (-q), --verbose (-v), --debug."


class Command(TyperCommand):
    """A command whose help is text: "[accept]" is a table of a recipe, not markup."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for parameter in () if self.rich_markup_mode is None else self.params:
            if said := getattr(parameter, "help", None):
                parameter.help = escape(said)  # type: ignore[attr-defined]

    def get_params(self, ctx: Any) -> Any:
        return untyped(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, narrowed(formatter))


def narrowed(formatter: Any) -> Any:
    """The same; in few columns what an option is begins further left, where the plain help would break words."""
    if COLUMNS < NARROW:
        formatter.write_dl = partial(formatter.write_dl, col_max=COLUMNS // 3)
    return formatter


def untyped(parameters: Any) -> Any:
    """The same, without a type behind a flag: the boxed help shows `--json <bool>`, and a flag takes no value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class Group(TyperGroup):
    """A group that lists its commands in the guide's order and under its headings, without boxes too."""

    def get_params(self, ctx: Any) -> Any:
        return untyped(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, narrowed(formatter))

    def list_commands(self, ctx: Any) -> list[str]:
        known = list(GUIDE)
        return sorted(self.commands, key=lambda name: known.index(name) if name in known else len(known))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.commands[name]
            panel = getattr(command, "rich_help_panel", None)
            said = (command.help or "").strip().partition("\n")[0]
            panels.setdefault(panel if isinstance(panel, str) else "Commands", []).append((name, said))
        for panel, lines in panels.items():
            with formatter.section(panel):
                formatter.write_dl(lines)


class App(typer.Typer):
    """A Typer whose commands stand under their heading in the help, with their examples below. `path` is a group's own name."""

    def __init__(self, *, path: str = "", **options: Any) -> None:
        boxes: Any = None if PLAIN else "rich"
        super().__init__(cls=Group, no_args_is_help=True, rich_markup_mode=boxes, context_settings=SETTINGS, **options)
        self.path = path

    def command(self, name: str | None = None, **options: Any) -> Callable[[Called], Called]:
        def register(function: Called) -> Called:
            word = name or function.__name__.replace("_", "-")
            panel, examples = GUIDE.get(f"{self.path} {word}".strip(), (None, ()))
            given: dict[str, Any] = {"epilog": epilog(examples), "cls": Command, "context_settings": SETTINGS, **options}
            if panel and not self.path:
                given["rich_help_panel"] = panel
            return super(App, self).command(name, **given)(function)

        return register


def epilog(examples: tuple[str, ...]) -> str:
    """Below a command's options: its examples, a line each."""
    lines = ["Examples:" if len(examples) > 1 else "Example:", *(f"  $ toolkit {one}" for one in examples)] if examples else []
    if PLAIN:
        return "\n\n".join(["\n".join(["\b", *lines]), EVERYWHERE])  # after \b no line is wrapped
    return escape("\n\n".join([*lines, EVERYWHERE]))
