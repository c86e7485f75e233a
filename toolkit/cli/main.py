"""The command line: it reads arguments, calls one function of a room, and prints. Failures are one line and exit code 2."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer
from rich.text import Text

from toolkit.cli import build, cache, capacity, handoff, look, measure, migrate, orders, trust, why  # noqa: F401  each registers its commands
from toolkit.cli.app import UNDECIDED, app, err
from toolkit.errors import BudgetError, ToolkitError, UndecidedError

INTERRUPTED = 130  # how typer reports Ctrl-C
UsageError: Any = typer.BadParameter.__base__  # of the click that this typer brings


def main() -> NoReturn:
    """The entry point: a refused verdict exits 1, an undecided one 3, any other failure 2; one line, no traceback."""
    debug = "--debug" in sys.argv[1:]
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        code = app(standalone_mode=False)  # else Ctrl-C would be answered with "Aborted." and nothing more
    except UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except UndecidedError as error:
        _fail(error, UNDECIDED, debug)
    except BudgetError as error:
        _fail(error, 1, debug)
    except (ToolkitError, OSError) as error:
        _fail(error, 2, debug)
    except (KeyboardInterrupt, typer.Abort):
        raise KeyboardInterrupt from None  # answered in __main__.py
    except MemoryError:
        remedy = "Run it where there is more memory, or with fewer or smaller images"
        _fail(ToolkitError("there is not enough memory for this", remedy=remedy), 2, debug)
    except Exception as error:  # a fault of the toolkit's own: exit code 1 would say that a verdict was refused
        if debug:
            raise
        remedy = "Run the command again with --debug, and report what it prints"
        _fail(ToolkitError(f"the toolkit has a fault here ({type(error).__name__}: {error})", remedy=remedy), 2, debug)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: BaseException, code: int, debug: bool) -> NoReturn:
    if debug:
        raise error
    err.print(Text.assemble(("error:", "bold red"), " ", " ".join(str(error).split())), soft_wrap=True)
    sys.exit(code)
