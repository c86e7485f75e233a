"""What the doctor found, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Group
from rich.table import Table
from rich.text import Text

from toolkit.doctor import Capability

TITLES = {"machine": "machine", "library": "libraries", "gpu": "GPUs", "target": "targets"}


def diagnosis(rows: Sequence[Capability]) -> Group:
    """A table a topic; targets also say whether they can be built and run here."""
    tables = []
    for topic, found in groupby(rows, key=lambda row: row.topic):
        table = Table(title=TITLES[topic], title_justify="left", expand=False)
        for column in ("name", "found", *(("build", "run") if topic == "target" else ()), "next"):
            table.add_column(column, no_wrap=column in ("name", "build", "run"))
        for row in found:
            answers = [_answer(row.build), _answer(row.run)] if topic == "target" else []
            table.add_row(Text(row.name), Text(row.found), *answers, Text(row.next))
        tables.append(table)
    return Group(*tables)


def _answer(value: bool | None) -> Text:
    return Text("") if value is None else Text("yes", style="green") if value else Text("no", style="red")
