"""Table: the same rows for a terminal and, as Markdown, for a pull request or a README."""

from __future__ import annotations

from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolkit.harness.measurement import CLOCKS
from toolkit.harness.results import Results
from toolkit.report.summary import EngineSummary, baseline, headline, rows, times

COLUMNS = ("engine", "precision", "p50 ms", "p99 ms", "speed", "img/s", "top-1", "agrees", "verdict")
WORDS = ("engine", "precision", "verdict")  # columns of text, set left


def text(results: Results, width: int = 120) -> str:
    """The table as plain text, without colors."""
    page = Console(file=StringIO(), width=width, no_color=True)
    page.print(table(results))
    return page.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def table(results: Results) -> Table:
    """A rich table of 80 columns or more: a line an engine; what the columns mean stands under it.

    The precision is left out for want of room: an engine's name tells it, and the page shows it.
    """
    summary = rows(results)
    drawn = Table(
        title=title(results, summary),
        caption=note(results, summary),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for column in COLUMNS:
        if column != "precision":
            left = column in WORDS
            drawn.add_column(column, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for row in summary:
        name, _, *figures, verdict = cells_of(row)
        style = "" if row.verdict is None else "green" if row.verdict.accepted else "bold red"
        drawn.add_row(Text(name), *map(Text, figures), Text(verdict, style=style))
    return drawn


def markdown(results: Results) -> str:
    """The verdicts, the table and the notes as GitHub's Markdown; ends in a newline."""
    summary = rows(results)
    lines = [f"### {_plain(title(results, summary))}", ""]
    lines += [f"- {_plain(line)}" for line in headline(summary, baseline(results))]
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "|" + "|".join("---" if c in WORDS else "---:" for c in COLUMNS) + "|"]
    lines += ["| " + " | ".join(_plain(cell) for cell in cells_of(row)) + " |" for row in summary]
    lines += ["", _plain(note(results, summary)), ""]
    troubled = [(row.name, text) for row in summary for text in row.trouble]
    if troubled:
        lines += ["Not to be trusted as they stand:", "", *(f"- {_plain(name)}: {_plain(text)}" for name, text in troubled), ""]
    return "\n".join(lines)


def title(results: Results, summary: list[EngineSummary]) -> str:
    """What was measured where, in a line."""
    batches = sorted({row.latency.batch for row in summary if row.latency})
    at = f", batch {batches[0]}" if len(batches) == 1 else ""
    return f"{len(summary)} engines on {results.environment.device}{at}"


def note(results: Results, summary: list[EngineSummary]) -> str:
    """What the columns mean, for a reader who sees such a table for the first time."""
    clocks = sorted({row.latency.clock for row in summary if row.latency})
    parts = [f"Clock: {clock} ({CLOCKS[clock]})." for clock in clocks]
    base = baseline(results)
    parts.append("p50: half of the calls were faster. p99: 99 of 100 were.")
    parts += [f"Speed: p50 of {base} over that of the engine, so above 1x is faster."] if base else []
    bounds = sorted({m.bound_ns for m in results.measurements if m.scenario == "server" and m.bound_ns})
    parts += [f"img/s: the highest Poisson rate with p99 under {bound * 1e-6:g} ms." for bound in bounds]
    if any(row.verdict for row in summary):
        parts.append("Agrees: the share of images that the engine and its reference give the same class.")
    if any(row.trouble for row in summary):
        parts.append("* unsteady: see the notes.")
    return " ".join(parts)


def cells_of(row: EngineSummary) -> list[str]:
    """The texts of one line, in the order of COLUMNS; a dash where nothing was measured."""
    verdict = row.verdict
    word = "-" if verdict is None else verdict.word if verdict.accepted else f"refused: {verdict.word}"
    if verdict is not None and not verdict.accepted and verdict.agreement < verdict.min_agreement:
        word = "refused: agreement"
    return [
        row.name + ("*" if row.trouble else ""),
        row.precision,
        _figure(row.p50),
        _figure(row.p99),
        times(row.speedup) or "-",
        "-" if row.throughput is None else f"{row.throughput:,.0f}",
        "-" if row.top1 is None else f"{row.top1:.2%}",
        "-" if verdict is None else f"{verdict.agreement:.2%}",
        word,
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _plain(text: str) -> str:
    """A text that Markdown leaves as it is."""
    for character in "\\`*_|<>[]":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
