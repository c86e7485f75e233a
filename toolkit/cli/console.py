"""Console: prints what strangers wrote (names, notes, paths) as text. Nothing in it is markup, and no control code is obeyed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# Control codes but tab and newline, and halves of surrogate pairs: Python's way to hold a file name that is no UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """The text, with a replacement character for each one that a terminal would obey or an encoding refuse."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


class PlainConsole(Console):
    """A Console for which "[red]" is five letters. Give it `rich.text.Text` where something is to be styled."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
