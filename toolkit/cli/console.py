"""Console: prints what strangers wrote (names, notes, paths) as text. Nothing in it is markup, and no control code is obeyed.

Where the output is a pipe or a file no line is wrapped or cut: programs read lines. On a terminal text is wrapped between words,
and a word that is longer than the window (a path) is left whole, so that it can be copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from toolkit.report.listing import flow
from toolkit.types import printable

UNBOUNDED = 100_000  # columns of a pipe
Detail = Literal["quiet", "normal", "verbose"]


class PlainConsole(Console):
    """A Console for which "[red]" is five letters. Give it `rich.text.Text` where something is to be styled.

    `detail` is how much it says: `--quiet` leaves the progress and the notes out, `--verbose` leaves nothing out.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)
        self.detail: Detail = "normal"
        if "width" not in options and not self.is_terminal:  # whatever COLUMNS says: that is of a terminal
            self._width = UNBOUNDED

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        given = options or self.options
        if isinstance(renderable, Text) and not given.no_wrap and given.max_width < UNBOUNDED:
            renderable = flow(renderable, given.max_width)
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich prints, but lines of text are never cut, and words of them never broken."""
        if not options.get("soft_wrap"):
            options = {"crop": False, **options}
        super().print(*objects, **options)

    @property
    def animated(self) -> bool:
        """Whether a line can be drawn over: a terminal that is not dumb."""
        return self.is_terminal and not self.is_dumb_terminal

    def say(self, text: str | Text) -> None:
        """A line that `--quiet` leaves out."""
        if self.detail != "quiet":
            self.print(text, highlight=False)

    def notes(self, notes: Sequence[str], rest: str, keep: int | None = None) -> None:
        """Notes in order of weight, indented, no more of them than fit a screen beside the rest; then how to see the others.

        On a pipe all are printed: there is no screen. `keep` lines of the screen are for what else is printed.
        """
        wanted = [note for note in notes if self.detail != "quiet" or weight(note) == 0]
        ordered = sorted(wanted, key=weight)
        shown: Sequence[str] = ordered
        if self.is_terminal and self.detail == "normal":
            shown = _fitting(ordered, self.width, max(5, self.height - (keep or 8)))
        for note in shown:
            self.print(Text(f"  {note}", style="bold red" if weight(note) == 0 else ""))
        if len(shown) < len(ordered):
            self.print(Text(f"  {len(ordered) - len(shown)} more notes: {rest}", style="dim"))


def weight(note: str) -> int:
    """What to know about this comparison first: warnings; then what the engine is worth; then what was decided; then how."""
    if note.startswith("WARNING"):
        return 0
    if re.match(r"same within|better by|worse by|cannot tell|agreement |unlabeled: ", note):
        return 1
    return 3 if re.match(r"auto: |\d+ threads?\b", note) else 2


def _fitting(notes: Sequence[str], width: int, lines: int) -> Sequence[str]:
    """As many notes as fit so many lines; warnings are all kept."""
    used = 0
    for index, note in enumerate(notes):
        used += 1 + (len(note) + 2) // max(width, 1)
        if used > lines and weight(note) > 0:
            return notes[:index]
    return notes
