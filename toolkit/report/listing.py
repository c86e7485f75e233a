"""Listing: a table that no window cuts. Where it does not fit, each row becomes a few lines of its own.

Names are shortened only on a terminal, and never until two of them look alike.
"""

from __future__ import annotations

import re
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
            yield flow(Text(self.title, style="bold"), options.max_width)
        if self.width <= options.max_width:
            yield self._table()
        else:
            yield from (flow(line, options.max_width) for line in self._records())
        if self.note:
            yield flow(Text(self.note, style="dim"), options.max_width)

    @property
    def width(self) -> int:
        """Columns that the whole table needs."""
        columns = [[name] + [row[i].plain for row in self.rows if i < len(row)] for i, name in enumerate(self.head)]
        return sum(2 + max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for index, name in enumerate(self.head):
            table.add_column(name, justify="left" if index in self.text else "right", no_wrap=True)
        for row, style in zip(self.rows, self.styles, strict=True):
            table.add_row(*row, style=style)
        return table

    def _records(self) -> Iterable[Text]:
        """The first cell of a row as its heading, and below it the others with the names of their columns."""
        for row, style in zip(self.rows, self.styles, strict=True):
            first, *others = row
            rest = [(name, cell) for name, cell in zip(self.head[1:], others, strict=False) if cell.plain.strip(" -")]
            head = Text(first.plain, style=style or "bold")
            if len(rest) == 1 and "\n" not in rest[0][1].plain:
                yield head + Text(": ") + rest[0][1]
                continue
            yield head
            for name, cell in rest:
                if "\n" in cell.plain:  # a drawing: its lines belong under each other
                    yield from (Text("  ") + line for line in cell.split("\n"))
                else:
                    yield Text(f"  {name} " if name else "  ") + cell


def flow(text: Text, width: int) -> Text:
    """The text in lines of at most `width` columns, broken between words; a longer word, such as a path, keeps a line of its own.

    Lines that go on are indented as their first one is.
    """
    plain, indent = text.plain, len(text.plain) - len(text.plain.lstrip(" "))
    breaks, used = list[int](), 0
    for word in re.finditer(r"\S+[ \n]*|^ +", plain):
        letters = word[0].rstrip(" \n")
        if used + cell_len(letters) > width and used > indent:
            breaks.append(word.start())
            used = indent
        used = 0 if "\n" in word[0] else used + cell_len(word[0])
    lines = text.divide(breaks)
    for line in lines[1:]:
        line.pad_left(indent)
    for line in lines:
        line.rstrip()
    whole = Text("\n").join(lines)
    whole.overflow, whole.no_wrap, whole.style = "ignore", True, text.style
    return whole


def shorten(names: Sequence[str], letters: int) -> list[str]:
    """Names of at most so many letters, by their ends, which tell more; whole where two would look alike."""
    cut = {name: name if len(name) <= letters else f"…{name[1 - letters :]}" for name in names}
    shared = list(cut.values())
    return [cut[name] if shared.count(cut[name]) == 1 else name for name in names]
