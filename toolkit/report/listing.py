"""Listing: a table that no window cuts. Where it does not fit, each row becomes a few lines of its own.

Names are shortened only on a terminal, and never until two of them look alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

Cell = str | Text


class Listing:
    """Rows of words and figures for a terminal, a pipe or a file.

    `text` are the columns that are no figures, set left. `title` stands above and `note` below, as wide as the window allows.
    `styles`: one a row.
    """

    def __init__(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[Cell]],
        *,
        text: Sequence[int] | None = None,
        title: str = "",
        note: str = "",
        styles: Sequence[str] = (),
    ) -> None:
        self.head, self.title, self.note = list(head), title, note
        self.rows = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
        self.styles = list(styles) or [""] * len(self.rows)
        self.text = set(range(len(head)) if text is None else text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[RenderableType]:
        if self.title:
            yield _words(self.title, "bold")
        if self.width <= options.max_width:
            yield self._table()
        else:
            yield from self._records()
        if self.note:
            yield _words(self.note, "dim")

    @property
    def width(self) -> int:
        """Columns that the whole table needs."""
        columns = [[name] + [row[i].plain for row in self.rows if i < len(row)] for i, name in enumerate(self.head)]
        return sum(1 + max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for index, name in enumerate(self.head):
            table.add_column(name, justify="left" if index in self.text else "right", no_wrap=True)
        for row, style in zip(self.rows, self.styles, strict=True):
            table.add_row(*row, style=style)
        return table

    def _records(self) -> Iterable[RenderableType]:
        """The first cell of a row as its heading, and below it the others with the names of their columns."""
        for row, style in zip(self.rows, self.styles, strict=True):
            first, *others = row
            rest = [(name, cell) for name, cell in zip(self.head[1:], others, strict=False) if cell.plain.strip(" -")]
            head = Text(first.plain, style=style or "bold")
            if len(rest) == 1 and "\n" not in rest[0][1].plain:
                yield _words(head + Text(": ") + rest[0][1])
                continue
            yield _words(head)
            for name, cell in rest:
                if "\n" in cell.plain:  # a drawing: its lines belong under each other
                    yield from (_words(Text("  ") + line) for line in cell.split("\n"))
                else:
                    yield _words(Text(f"  {name} " if name else "  ") + cell)


def _words(text: Cell, style: str = "") -> Text:
    made = text if isinstance(text, Text) else Text(text, style=style)
    made.overflow = "ignore"
    return made


def shorten(names: Sequence[str], letters: int) -> list[str]:
    """Names of at most so many letters, by their ends, which tell more; whole where two would look alike."""
    cut = {name: name if len(name) <= letters else f"…{name[1 - letters :]}" for name in names}
    shared = list(cut.values())
    return [cut[name] if shared.count(cut[name]) == 1 else name for name in names]
