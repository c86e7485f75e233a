"""The terminal table and its Markdown twin."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console

from toolkit.harness.results import Results
from toolkit.report.summary import rows
from toolkit.report.table import COLUMNS, cells_of, markdown, table

HOSTILE = "int8 <script>alert('x')</script> & \"quoted\""


def printed(results: Results, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(table(results))
    return out.getvalue()


def test_the_terminal_shows_every_engine_and_explains_its_columns(results: Results):
    text = " ".join(printed(results, 160).split())
    assert all(row.name in text for row in rows(results))
    assert "half of the calls were faster" in text
    assert "with-transfers" in text
    assert text.startswith("4 engines and the reference on "), "the reference is none"
    assert markdown(msgspec.structs.replace(results, verdicts=(), failures={})).startswith("### 3 engines and the reference on ")


def test_eighty_columns_hold_the_names_that_recipes_have(results: Results):
    def renamed(name: str) -> str:
        return name.replace(HOSTILE, "fashion-resnet18-int8")

    plain = msgspec.structs.replace(
        results,
        measurements=tuple(msgspec.structs.replace(m, engine=renamed(m.engine)) for m in results.measurements),
        verdicts=tuple(msgspec.structs.replace(v, engine=renamed(v.engine)) for v in results.verdicts),
        answers=(),
        failures={},
    )
    text = printed(plain, 80)
    assert "fashion-resnet18-int8" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_names_are_not_read_as_markup(results: Results):
    text = printed(results, 160)
    assert "<script>" in text, "a terminal shows what is there"


def test_markdown_is_a_table_that_a_name_cannot_break(results: Results):
    lines = [line for line in markdown(results).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows(results))
    assert all(line.replace("\\|", "").count("|") == len(COLUMNS) + 1 for line in lines)
    assert "<script" not in markdown(results).replace("\\<", "")


def test_what_was_not_measured_is_a_dash(results: Results):
    failed = next(row for row in rows(results) if row.name in results.failures)
    assert cells_of(failed)[2:] == ["-"] * 9
