"""Tuning: what a search found, as tables for a terminal: the front, the sensitivity of each part, the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolkit.harness.verdict import Verdict

BAR = 12  # characters


class Tried(Protocol):
    """A graph that the search has tried."""

    @property
    def name(self) -> str: ...
    @property
    def snr(self) -> float: ...
    @property
    def int8(self) -> float: ...
    @property
    def time(self) -> float: ...
    @property
    def p50_ms(self) -> float | None: ...
    @property
    def p99_ms(self) -> float | None: ...
    @property
    def searched(self) -> Verdict | None: ...
    @property
    def held_out(self) -> Verdict | None: ...


class Part(Protocol):
    """The sensitivity of one part of the network."""

    @property
    def unit(self) -> str: ...
    @property
    def alone(self) -> float: ...
    @property
    def left_out(self) -> float: ...
    @property
    def share(self) -> float: ...


class Tuned(Protocol):
    """What `toolkit.tuning.TuneResult` holds, as far as it is shown."""

    @property
    def winner(self) -> Tried: ...
    @property
    def finalists(self) -> Sequence[Tried]: ...
    @property
    def front(self) -> Sequence[Tried]: ...
    @property
    def sensitivity(self) -> Sequence[Part]: ...
    @property
    def reasons(self) -> Sequence[str]: ...
    @property
    def evaluations(self) -> int: ...
    @property
    def predicted(self) -> bool: ...


def tuning(result: Tuned) -> RenderableType:
    """The front with the winner marked, the parts with the most sensitive first, then why."""
    reasons = Text("\n".join(f"- {reason}" for reason in result.reasons))
    return Group(_front(result), _parts(result.sensitivity), Text("Why", style="bold"), reasons)


def _front(result: Tuned) -> Table:
    time = "time, predicted" if result.predicted else "p50 ms"
    table = Table(title=f"{result.evaluations} graphs evaluated; the front of time and accuracy")
    table.title_justify = table.caption_justify = "left"
    table.caption = "*: on the front, no other is both faster and nearer to the reference. dB: the logits against their error."
    for column in ("", "graph", "INT8 work", time, "p99 ms", "", "dB", "verdict"):
        table.add_column(column, justify="left" if column in ("", "graph", "verdict") else "right")
    longest = max(trial.time for trial in result.finalists)
    fastest = min(trial.time for trial in result.finalists)
    front = [trial.name for trial in result.front]
    for trial in sorted(result.finalists, key=lambda t: t.time):
        won = trial.name == result.winner.name
        shown = f"{trial.time / fastest:.2f}x" if trial.p50_ms is None else f"{trial.p50_ms:.3f}"
        p99 = "" if trial.p99_ms is None else f"{trial.p99_ms:.3f}"
        bar = "█" * max(1, round(BAR * trial.time / longest))
        mark = "*" if trial.name in front else ""
        row = [mark, trial.name, f"{trial.int8:.1%}", shown, p99, bar, f"{trial.snr:.1f}", _verdict(trial)]
        table.add_row(*map(Text, row), style="bold green" if won else None)
    return table


def _parts(parts: Sequence[Part]) -> Table:
    table = Table(title="Sensitivity, the most sensitive first", title_justify="left")
    for column in ("part", "work", "dB where it alone is INT8", "", "dB where it alone is not"):
        table.add_column(column, justify="left" if column in ("", "part") else "right")
    most = max((part.alone for part in parts), default=1.0)
    for part in sorted(parts, key=lambda p: p.alone):
        bar = "█" * max(1, round(BAR * part.alone / most))
        table.add_row(*map(Text, [part.unit, f"{part.share:.1%}", f"{part.alone:.1f}", bar, f"{part.left_out:.1f}"]))
    return table


def _verdict(trial: Tried) -> str:
    verdict, where = (trial.held_out, ", held out") if trial.held_out is not None else (trial.searched, "")
    return "" if verdict is None else f"{verdict.word}, agrees {verdict.agreement:.2%}{where}"
