"""Tuning: what a search found, as tables for a terminal: the front, the sensitivity of each part, the reasons."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from toolkit.report.listing import Listing, shorten
from toolkit.tuning.result import TuneResult
from toolkit.tuning.trial import Sensitivity, Trial

BAR = 12  # characters
MOST = 15  # parts on a terminal
LETTERS = 40  # of a part's name


def tuning(result: TuneResult, *, verbose: bool = True) -> RenderableType:
    """The front with the winner marked, the parts with the most sensitive first (all of them if `verbose`), then why."""
    reasons = Text("\n".join(f"- {reason}" for reason in result.reasons))
    return Group(_front(result), _parts(result.sensitivity, verbose), Text("Why", style="bold"), reasons)


def outcome(result: TuneResult) -> str:
    """The winner in a line: how fast, how accurate."""
    winner = result.winner
    took = f"p50 {winner.p50_ms:.3f} ms" if winner.p50_ms is not None else "time predicted"
    return f"{winner.name}: {took}, {winner.snr:.1f} dB{', ' if _verdict(winner) else ''}{_verdict(winner)}"


def _front(result: TuneResult) -> Listing:
    time = "time, predicted" if result.predicted else "p50 ms"
    title = f"{result.evaluations} graphs evaluated; the Pareto front of time and accuracy"
    note = "*: on the front, no other is both faster and nearer to the reference. dB: SNR of the logits."
    longest = max(trial.time for trial in result.finalists)
    fastest = min(trial.time for trial in result.finalists)
    front = [trial.name for trial in result.front]
    body, styles = [], []
    for trial in sorted(result.finalists, key=lambda t: t.time):
        shown = f"{trial.time / fastest:.2f}x" if trial.p50_ms is None else f"{trial.p50_ms:.3f}"
        p99 = "" if trial.p99_ms is None else f"{trial.p99_ms:.3f}"
        bar = "█" * max(1, round(BAR * trial.time / longest))
        mark = "*" if trial.name in front else ""
        body.append([f"{trial.name}{mark}", f"{trial.int8:.1%}", shown, p99, bar, f"{trial.snr:.1f}", _verdict(trial)])
        styles.append("bold green" if trial.name == result.winner.name else "")
    head = ("graph", "INT8 work", time, "p99 ms", "", "dB", "verdict")
    return Listing(head, body, text=(0, 4, 6), title=title, note=note, styles=styles)


def _parts(parts: Sequence[Sensitivity], verbose: bool) -> Listing:
    most = max((part.alone for part in parts), default=1.0)
    ordered = sorted(parts, key=lambda p: p.alone)
    shown = ordered if verbose else ordered[:MOST]
    bars = ["█" * max(1, round(BAR * part.alone / most)) for part in shown]
    names = shorten([part.unit for part in shown], LETTERS)
    body = [
        [name, f"{part.share:.1%}", f"{part.alone:.1f}", bar, f"{part.left_out:.1f}"]
        for name, part, bar in zip(names, shown, bars, strict=True)
    ]
    rest = f"{len(ordered) - len(shown)} more: --verbose, or --json" if len(shown) < len(ordered) else ""
    head = ("part", "work", "dB where it alone is INT8", "", "dB where it alone is not")
    return Listing(head, body, text=(0, 3), title="Sensitivity, the most sensitive first", note=rest)


def _verdict(trial: Trial) -> str:
    verdict, where = (trial.held_out, ", held out") if trial.held_out is not None else (trial.searched, "")
    return "" if verdict is None else f"{verdict.short}, agrees {verdict.agreement:.2%}{where}"
