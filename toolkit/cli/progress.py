"""Progress bars for the command line: one line a stage, with how long it took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from toolkit.cli.app import err
from toolkit.types import Progress as Advance


@contextmanager
def stages() -> Iterator[Callable[[str], Advance]]:
    """Gives a function that begins a stage by name and returns where its (done, total) goes. Bars are drawn on stderr."""
    columns = (
        SpinnerColumn(finished_text=Text("✓", "green")),
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        MofNCompleteColumn(),
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
