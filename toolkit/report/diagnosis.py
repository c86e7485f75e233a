"""What the doctor found, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Group
from rich.text import Text

from toolkit.doctor import Capability
from toolkit.report.listing import Listing

TITLES = {"machine": "machine", "library": "libraries", "gpu": "GPUs", "target": "targets"}


def diagnosis(rows: Sequence[Capability]) -> Group:
    """A table a topic; targets also say whether they can be built and run here."""
    tables = []
    for topic, found in groupby(rows, key=lambda row: row.topic):
        head = ("name", "found", *(("build", "run") if topic == "target" else ()), "next")
        body = []
        for row in found:
            answers = [_answer(row.build), _answer(row.run)] if topic == "target" else []
            body.append([Text(row.name), Text(row.found), *answers, Text(row.next)])
        tables.append(Listing(head, body, title=TITLES[topic]))
    return Group(*tables)


def _answer(value: bool | None) -> Text:
    return Text("") if value is None else Text("yes", style="green") if value else Text("no", style="red")
