"""What strangers wrote is printed as it stands, and obeyed by nobody."""

from __future__ import annotations

import io

import pytest
from rich.table import Table
from rich.text import Text

from toolkit.cli.console import PlainConsole
from toolkit.types import printable

HOSTILE = ["[/x]", "[red]x[/red]", "[link=file:///etc]x", "[/]", "a [b", "\\[x]", ":smiley:", "[@click=app.bell]x"]


def printed(what: object) -> str:
    file = io.StringIO()
    PlainConsole(file=file, width=100, force_terminal=True, color_system=None).print(what, highlight=False)
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_is_text(text: str) -> None:
    table = Table(title=text)
    table.add_column(text, footer=text)
    table.add_row(text)
    assert printed(text) == f"{text}\n"
    assert text in printed(Text.assemble((text, "bold")))
    assert printed(table).count(text) >= 3


@pytest.mark.parametrize("code", ["\x1b[2J", "\x1b]0;title\x07", "\x9b2J", "\r", "\b", "\x7f", "\udcff"])
def test_control_codes_are_not_sent(code: str) -> None:
    for what in (f"a{code}b", Text(f"a{code}b")):
        shown = printed(what)
        assert not set(code) & set(shown) - set("[]02J;title")
        assert shown.startswith("a")
        shown.encode()
    assert printable("äß\t漢\n") == "äß\t漢\n"
