"""Progress for the command line: one line a stage, with how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from toolkit.cli.app import err
from toolkit.types import Progress as Advance
from toolkit.types import Stage, quiet


@contextmanager
def stages() -> Iterator[Stage]:
    """Gives a function that begins a stage by name and returns where its (done, total) goes; drawn on stderr.

    Bars on a terminal; elsewhere (a pipe, a log, a dumb terminal) a line as each stage ends; with --quiet nothing.
    """
    if err.detail == "quiet":
        yield quiet
    elif not err.animated:
        with _lines() as stage:
            yield stage
    else:
        with _bars() as stage:
            yield stage


@contextmanager
def _lines() -> Iterator[Stage]:
    running: list[tuple[str, float]] = []

    def finish() -> None:
        for name, start in running:
            err.print(Text(f"{name}: {time.monotonic() - start:.1f} s"))
        running.clear()

    def begin(name: str) -> Advance:
        finish()
        running.append((name, time.monotonic()))
        return lambda done, total: None

    yield begin
    finish()


@contextmanager
def _bars() -> Iterator[Callable[[str], Advance]]:
    narrow = err.width < 72
    columns = (
        SpinnerColumn(finished_text=Text("✓", "green")),
        TextColumn("{task.description}", markup=False),
        *(() if narrow else (BarColumn(24), MofNCompleteColumn())),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err) as bars:
        last: list[int] = []

        def finish() -> None:
            for task in last:
                total = next(t.total for t in bars.tasks if t.id == task) or 1
                bars.update(task, total=total, completed=total)  # type: ignore[arg-type]
            last.clear()

        def begin(name: str) -> Advance:
            finish()
            task = bars.add_task(name, total=None)
            last.append(task)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield begin
        finish()
