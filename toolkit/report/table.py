"""Table: the same rows for a terminal and, as Markdown, for a pull request or a README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from toolkit.harness.measurement import CLOCKS
from toolkit.harness.results import Results
from toolkit.report.amounts import half, milliseconds, rate, size, span, times
from toolkit.report.decision import decide
from toolkit.report.listing import Listing
from toolkit.report.summary import EngineSummary, baseline, counted, headline, rows

COLUMNS = ("engine", "precision", "p50 ms", "p99 ms", "speed", "img/s", "top-1", "agrees", "file", "memory", "verdict")
WORDS = ("engine", "precision", "verdict")  # columns of text, set left
SPANS = {"p50 ms": "p50", "p99 ms": "p99", "speed": "speedup", "img/s": "throughput"}  # columns with an interval
WIDE_ONLY = ("precision", "file", "memory")  # left out where the window has no room for them
BRACKETS = "In brackets: 95 % intervals."
HALVES = "±: half of the 95 % interval; ?: too few calls to bound it."
FORMS = {"p50": milliseconds, "p99": milliseconds, "speedup": times, "throughput": rate}


def text(results: Results, width: int = 120) -> str:
    """The table as plain text, without colors."""
    page = Console(file=StringIO(), width=width, no_color=True)
    page.print(table(results), crop=False, overflow="ignore")
    return page.file.getvalue()  # type: ignore[attr-defined,no-any-return]


class BenchTable:
    """A line an engine: with whole intervals where the window is wide enough, else with their half widths."""

    def __init__(self, results: Results) -> None:
        self.results, self.summary = results, rows(results)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[RenderableType]:
        narrow = [column for column in COLUMNS if column not in WIDE_ONLY]
        listings = (self._listing(COLUMNS, " ", whole=True), self._listing(narrow, " "), self._listing(narrow, "\n"))
        # where none fits, each engine gets a few lines, and so there is room for all
        yield next((one for one in listings if one.width <= options.max_width), listings[0])

    def _listing(self, columns: Sequence[str], between: str, *, whole: bool = False) -> Listing:
        """`between` stands between a figure and its interval: a space, or a line's end."""
        at = [COLUMNS.index(column) for column in columns]
        body = []
        for row in self.summary:
            cells = cells_of(row)
            spans = spans_of(row) if whole else halves_of(row)
            style = "" if row.verdict is None else "green" if row.verdict.accepted else "bold red"
            line = [Text(f"{cells[i]}{between}{spans[i]}".strip()) for i in at]
            line[-1] = Text(cells[-1], style=style)
            body.append(line)
        words = [i for i, column in enumerate(columns) if column in WORDS]
        about = note(self.results, self.summary, BRACKETS if whole else HALVES)
        return Listing(columns, body, text=words, title=title(self.results, self.summary), note=about)


def table(results: Results) -> BenchTable:
    """The table for a terminal; what its columns mean stands under it."""
    return BenchTable(results)


def markdown(results: Results) -> str:
    """The decision, the verdicts, the table and the notes as GitHub's Markdown; ends in a newline."""
    summary = rows(results)
    lines = [f"### {_plain(title(results, summary))}", ""]
    decision = decide(results, summary)
    lines += [f"**{_plain(decision.sentence)}** {_plain(' '.join(decision.also))}".rstrip(), ""] if decision else []
    lines += [f"- {_plain(line)}" for line in headline(summary, baseline(results))]
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "|" + "|".join("---" if c in WORDS else "---:" for c in COLUMNS) + "|"]
    for row in summary:
        cells = [_plain(f"{cell} {ends}".strip()) for cell, ends in zip(cells_of(row), spans_of(row), strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", _plain(note(results, summary)), ""]
    troubled = [(row.name, text) for row in summary for text in row.trouble]
    if troubled:
        lines += ["Unreliable as measured:", "", *(f"- {_plain(name)}: {_plain(text)}" for name, text in troubled), ""]
    absent = [f"- {_plain(row.name)}: {_plain(row.absent)}" for row in summary if row.absent]
    absent += [f"- {_plain(text)}" for text in results.notes]
    return "\n".join([*lines, *absent, ""] if absent else lines)


def title(results: Results, summary: Sequence[EngineSummary]) -> str:
    """What was measured where, in a line."""
    batches = sorted({row.latency.batch for row in summary if row.latency})
    at = f", batch {batches[0]}" if len(batches) == 1 else ""
    return f"{counted(summary)} on {results.environment.device}{at}"


def note(results: Results, summary: Sequence[EngineSummary], spans: str = BRACKETS) -> str:
    """What the columns mean, for a reader who sees such a table for the first time."""
    clocks = sorted({row.latency.clock for row in summary if row.latency})
    parts = [f"Clock: {clock} ({CLOCKS[clock]})." for clock in clocks]
    base = baseline(results)
    parts.append(f"p50: half of the calls were faster. p99: 99 of 100 were. {spans}")
    parts += [f"Speed: p50 of {base} over that of the engine, so above 1x is faster."] if base else []
    bounds = sorted({m.bound_ns for m in results.measurements if m.scenario == "server" and m.bound_ns})
    parts += [f"img/s: the highest Poisson rate with p99 under {bound * 1e-6:g} ms." for bound in bounds]
    if any(row.verdict for row in summary):
        parts.append("Agrees: the share of images that the engine and its reference give the same class.")
    if any(row.unsteady for row in summary):
        parts.append("* unsteady: see the notes.")
    return " ".join(parts)


def cells_of(row: EngineSummary) -> list[str]:
    """The texts of one line, in the order of COLUMNS; a dash where nothing was measured."""
    verdict = row.verdict
    return [
        row.name + ("*" if row.unsteady else ""),
        row.precision,
        milliseconds(row.p50),
        milliseconds(row.p99),
        times(row.speedup) or "-",
        rate(row.throughput),
        "-" if row.top1 is None else f"{row.top1:.2%}",
        "-" if verdict is None else f"{verdict.agreement:.2%}",
        size(row.footprint.file if row.footprint else None),
        size(row.footprint.memory if row.footprint else None),
        "-" if verdict is None else verdict.short,
    ]


def spans_of(row: EngineSummary) -> list[str]:
    """The 95 % interval that belongs to each cell; empty where there is none."""
    return [span(row.spans.get(SPANS[c]), FORMS[SPANS[c]]) if c in SPANS and not _base(row, c) else "" for c in COLUMNS]


def halves_of(row: EngineSummary) -> list[str]:
    """The same as half widths."""
    values = {"p50": row.p50, "p99": row.p99, "speedup": row.speedup, "throughput": row.throughput}
    return [half(values[SPANS[c]], row.spans.get(SPANS[c])) if c in SPANS and not _base(row, c) else "" for c in COLUMNS]


def _base(row: EngineSummary, column: str) -> bool:
    """What speeds count from is 1x, and nothing about that is uncertain."""
    return column == "speed" and row.spans.get("speedup") == (1.0, 1.0)


def _plain(text: str) -> str:
    """A text that Markdown leaves as it is."""
    for character in "\\`*_|<>[]":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
