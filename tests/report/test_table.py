"""The terminal table and its Markdown twin."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console

from toolkit.harness.results import Results
from toolkit.report.page import html
from toolkit.report.summary import headline, rows
from toolkit.report.table import COLUMNS, cells_of, markdown, table
from toolkit.report.told import told

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


def test_too_few_images_are_no_refusal_on_any_surface(results: Results):
    seen = {"images": 20, "disagreements": (), "margins": (), "agreement": 0.95, "min_agreement": 0.98, "test": None}
    few = msgspec.structs.replace(results, verdicts=tuple(msgspec.structs.replace(v, **seen) for v in results.verdicts))
    summary = [row for row in rows(few) if row.verdict is not None]
    assert {cells_of(row)[-1] for row in summary} == {"undecided: agreement"}
    assert all(": undecided. " in line for line in headline(summary, None))
    assert "? undecided" in html(few)
    assert "refused" not in html(few)
    assert {engine["state"] for engine in told(few)["engines"] if engine["verdict"]} == {"undecided"}


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
