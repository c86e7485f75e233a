"""Decision: which of the engines to ship, and why, in a sentence; what speaks against it, and the next command."""

from __future__ import annotations

import math
from collections.abc import Sequence

from toolkit.harness import intervals
from toolkit.harness.measurement import Measurement
from toolkit.harness.results import Results
from toolkit.harness.statistics import Estimate
from toolkit.report.amounts import milliseconds, size, span, times
from toolkit.report.summary import EngineSummary
from toolkit.types import Frozen

WORTH = 1.03  # a gain in speed that the lower end of its interval must reach before precision is given up for it
SMALLER = 1.2  # a difference in size worth a word
RANKS = {"fp32": 0, "bf16": 1, "fp16": 1, "fp8": 2, "int8": 3}


class Decision(Frozen, frozen=True):
    """`engine` is None where none can be shipped. `sentence` says why; `also` holds what else weighs.

    `next` is a command with an engine's name in the place of its path: results know no paths.
    """

    engine: str | None
    sentence: str
    also: tuple[str, ...] = ()
    next: str = ""

    @property
    def text(self) -> str:
        return " ".join((self.sentence, *self.also))


def decide(results: Results, summary: Sequence[EngineSummary]) -> Decision | None:
    """The simplest of the accepted engines that no other is shown to beat by 3 % in time; None where nothing was timed or judged.

    Simplest: FP32 before FP16, FP8 and INT8. An engine that narrows its numbers has to earn it.
    """
    references = {v.reference for v in results.verdicts} | {"reference"}
    engines = [row for row in summary if row.name not in references]
    judged = [row for row in engines if row.verdict is not None]
    candidates = [row for row in engines if row.verdict is not None and row.verdict.accepted] if judged else engines
    timed = [row for row in candidates if row.latency is not None]
    if judged and not candidates:
        return _none(judged)
    if not timed:
        return None
    ranked = sorted(timed, key=lambda row: (RANKS.get(row.precision.partition("+")[0], 4), row.p50 or 0.0))
    fastest = min(timed, key=lambda row: row.p50 or 0.0)
    if (open_ := _untold(ranked, fastest)) is not None:
        return open_
    chosen = next(row for row in ranked if row is fastest or not _gains(row, fastest))
    sentence = f"Ship {chosen.name}: {_fast(chosen, ranked)}{_accurate(chosen)}."
    also = [*_others(chosen, ranked, results), *_passed_over(chosen, engines if judged else ()), *_doubts(ranked, bool(judged))]
    return Decision(engine=chosen.name, sentence=sentence, also=tuple(also))


def _none(judged: Sequence[EngineSummary]) -> Decision:
    undecided = [row for row in judged if row.verdict and row.verdict.undecided]
    if undecided:
        name, verdict = undecided[0].name, undecided[0].verdict
        assert verdict is not None
        what = f"Ship none yet: {verdict.images:,} images are too few to decide whether {name} keeps its accuracy budget."
        return Decision(engine=None, sentence=what, next=f"toolkit accuracy {name} --data DIR")
    worst = ", ".join(row.name for row in judged)
    what = f"Ship none: {worst} {'is' if len(judged) == 1 else 'are'} refused."
    return Decision(engine=None, sentence=what, next=f"toolkit why {judged[-1].name}")


def _untold(ranked: Sequence[EngineSummary], fastest: EngineSummary) -> Decision | None:
    """Where too few rounds were measured for an interval of the ratio: what it looks like, and how to decide it."""
    found = _ratio(ranked[0], fastest)
    if found is None or math.isfinite(found.high) or found.value < WORTH:
        return None
    both = f"{milliseconds(fastest.p50)} ms beside {milliseconds(ranked[0].p50)} ms"
    what = f"{fastest.name} looks {times(found.value)} as fast as {ranked[0].name} ({both}), but too few rounds were measured"
    also = ("Both keep the accuracy budget.",) if ranked[0].verdict and fastest.verdict else ()
    command = "toolkit bench ENGINE... --seconds 60"
    return Decision(engine=None, sentence=f"Not decided yet: {what} to be sure.", also=also, next=command)


def _gains(plain: EngineSummary, fast: EngineSummary) -> bool:
    found = _ratio(plain, fast)
    return found is not None and found.low >= WORTH


def _ratio(slow: EngineSummary, fast: EngineSummary) -> Estimate | None:
    return intervals.ratio(slow.latency, fast.latency) if slow.latency and fast.latency else None


def _fast(chosen: EngineSummary, ranked: Sequence[EngineSummary]) -> str:
    assert chosen.latency is not None
    text = f"p50 {milliseconds(chosen.p50)} ms {span(chosen.spans.get('p50'), milliseconds)} at batch {chosen.latency.batch}"
    plain = ranked[0]
    if plain is not chosen and (found := _ratio(plain, chosen)) is not None:
        return f"{text}, {times(found.value)} {span(found[1:], times)} as fast as {plain.name}"
    rivals = [row for row in ranked if row is not chosen and row.p50 is not None]
    nearest = min(rivals, key=lambda row: row.p50 or 0.0, default=None)
    found = _ratio(chosen, nearest) if nearest is not None else None
    if nearest is None or found is None:
        return text
    if found.low >= 1 and found.high < WORTH**2:
        return f"{text}; {nearest.name} is faster by too little to give up precision for ({_against(found)})"
    if found.high <= 1:
        return f"{text}; {nearest.name} is slower ({_against(found)})"
    what = "buys nothing over it" if found.high < WORTH else "is not shown to be faster"
    return f"{text}; {nearest.name} at {milliseconds(nearest.p50)} ms {what} ({_against(found)})"


def _against(found: Estimate) -> str:
    return f"{times(found.value)} {span(found[1:], times)} as fast"


def _accurate(row: EngineSummary) -> str:
    if row.verdict is None:
        return ""
    return f"; {row.verdict.text}"


def _others(chosen: EngineSummary, ranked: Sequence[EngineSummary], results: Results) -> list[str]:
    """What another engine has for it: more images a second at a larger batch, a smaller file."""
    said = []
    for row in ranked:
        if row is chosen:
            continue
        pair = _largest(chosen.name, row.name, results)
        found = intervals.ratio(*pair) if pair else None
        if pair and found and found.low >= WORTH:
            many = f"{times(found.value)} {span(found[1:], times)} as many images a second"
            said.append(f"At batch {pair[0].batch} {row.name} answers {many}: take it where only throughput counts.")
    files = [(row.footprint.file, row) for row in ranked if row.footprint and row is not chosen]
    if chosen.footprint and files:
        least, row = min(files, key=lambda item: item[0])
        if chosen.footprint.file > SMALLER * least:
            both = f"{size(least)} beside {size(chosen.footprint.file)}"
            said.append(f"The file of {row.name} is {times(chosen.footprint.file / least)} smaller ({both}).")
    return said


def _passed_over(chosen: EngineSummary, engines: Sequence[EngineSummary]) -> list[str]:
    """The engines that are faster and may not be shipped: why not, and what would change that."""
    said = []
    for row in engines:
        found = None if row.verdict is not None and row.verdict.accepted else _ratio(chosen, row)
        if found is not None and found.low >= WORTH:
            said.append(f"{row.name} is {_against(found)}, but {_why_not(row)}.")
    return said


def _why_not(row: EngineSummary) -> str:
    if row.verdict is None:
        return "its accuracy was not compared: toolkit accuracy ENGINE --data DIR"
    if row.verdict.undecided:
        return f"{row.verdict.images:,} images are too few to decide on it: toolkit accuracy ENGINE --data DIR, with more of them"
    return "it is refused: toolkit why ENGINE"


def _largest(one: str, other: str, results: Results) -> tuple[Measurement, Measurement] | None:
    """Both at the largest batch above the smallest that they share, closed loop and under one clock."""
    every = [[m for m in results.of(name) if m.scenario == "single-stream" and len(m.seconds)] for name in (one, other)]
    sides = [{(m.batch, m.clock): m for m in found} for found in every]
    shared = sorted(key for key in sides[0].keys() & sides[1].keys() if key[1] == "with-transfers")
    return (sides[0][shared[-1]], sides[1][shared[-1]]) if len(shared) > 1 else None


def _doubts(ranked: Sequence[EngineSummary], judged: bool) -> list[str]:
    said = [] if judged else ["Accuracy was not compared: toolkit accuracy ENGINE --data DIR."]
    if any(row.unsteady for row in ranked):
        said.append("The timings are unsteady: measure again on a quiet machine before relying on it.")
    return said
