"""The command line: it reads arguments, calls one function of a room, and prints. Failures are one line and exit code 2."""

from __future__ import annotations

import os
import re
import sys
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.text import Text

from toolkit.cli import (  # noqa: F401  each registers its commands
    build,
    cache,
    capacity,
    engine,
    handoff,
    look,
    measure,
    migrate,
    parity,
    recipe,
    serve,
    why,
)
from toolkit.cli.app import UNDECIDED, app, err, out
from toolkit.errors import BudgetError, ToolkitError, UndecidedError, extras

GLOBAL = {"--debug": "debug", "--quiet": "quiet", "-q": "quiet", "--verbose": "verbose", "-v": "verbose"}
INTERRUPTED = 130  # how typer reports Ctrl-C
UsageError: Any = typer.BadParameter.__base__  # of the click that this typer brings


def main() -> NoReturn:
    """The entry point: a refused verdict exits 1, an undecided one 3, any other failure 2; one line, no traceback."""
    sys.argv, flags = _global(sys.argv)
    debug = "debug" in flags
    out.detail = err.detail = "quiet" if "quiet" in flags else "verbose" if "verbose" in flags else "normal"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal whose encoding has no such letter
    try:
        # not standalone: else Ctrl-C would be answered with "Aborted." and nothing more
        with extras():
            code = app(standalone_mode=False, prog_name=_program(sys.argv[0]))
    except UsageError as error:
        _misused(error)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except UndecidedError as error:
        _fail(error, UNDECIDED, debug)
    except BudgetError as error:
        _fail(error, 1, debug)
    except ToolkitError as error:
        _fail(error, 2, debug)
    except OSError as error:
        _fail(_nowhere() or error, 2, debug)
    except (KeyboardInterrupt, typer.Abort):
        raise KeyboardInterrupt from None  # answered in __main__.py
    except MemoryError:
        remedy = "Run it where there is more memory, or with fewer or smaller images"
        _fail(ToolkitError("there is not enough memory for this", remedy=remedy), 2, debug)
    except Exception as error:  # a fault of the toolkit's own: exit code 1 would say that a verdict was refused
        if debug:
            raise
        remedy = "Run the command again with --debug, and report what it prints"
        _fail(ToolkitError(f"internal error ({type(error).__name__}: {error})", remedy=remedy), 2, debug)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    sys.exit(code if isinstance(code, int) else 0)


def _global(arguments: list[str]) -> tuple[list[str], set[str]]:
    """The arguments without those that may stand anywhere, and which of these there were."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    found = {GLOBAL[one] for one in arguments[1:end] if one in GLOBAL}
    return [one for index, one in enumerate(arguments) if index >= end or one not in GLOBAL], found


def _program(first: str) -> str:
    """What the help and the completion call it."""
    name = Path(first).stem
    return name if name in ("toolkit", "resnet-deploy") else "toolkit"


def _misused(error: Any) -> NoReturn:
    """A wrong word on the command line is a line, as any failure is; no word at all gets the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(error.exit_code)
    message = " ".join(error.format_message().split()).replace(": Value error, ", ": ")  # pydantic's words, of a choice
    if choice := re.search(r"'([^']*)' is not one of (.*)$", message):
        close = get_close_matches(choice[1], re.findall(r"'([^']+)'", choice[2]), 1)
        message = f"{message.rstrip('.')}. Did you mean '{close[0]}'?" if close else message
    if near := getattr(error, "possibilities", None):
        meant = get_close_matches(error.option_name, near, 1, 0.0)[0]
        message = f"{message.partition(' (Possible')[0].partition(' Did you mean')[0].rstrip('.')}. Did you mean {meant}?"
    command = error.ctx.command_path if error.ctx is not None else "toolkit"
    err.print(Text.assemble(("error:", "bold red"), f" {message.rstrip('.')}{'' if message.endswith('?') else '.'} "
                            f"See {command} --help"))  # fmt: skip
    sys.exit(error.exit_code)


def _nowhere() -> ToolkitError | None:
    """Where the folder that this process stands in was deleted, the system's error names no file."""
    try:
        os.getcwd()
    except OSError:
        return ToolkitError("the current folder no longer exists", remedy="Change into one that does, and run the command again")
    return None


def _fail(error: BaseException, code: int, debug: bool) -> NoReturn:
    if debug:
        raise error
    err.print(Text.assemble(("error:", "bold red"), " ", " ".join(str(error).split())), soft_wrap=True)
    sys.exit(code)
