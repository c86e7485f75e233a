"""Compare: is NEW slower than OLD, or was it the machine? A gate that keeps its false alarms under control.

For each engine, batch, clock and scenario that both files hold:

1. A block gives one value: log(10th percentile of its samples / fastest yardstick beside it). A neighbor's interruptions
   only ever add time, so the low end of a block is what the code takes when it is left alone; and what slows even that
   (a lower clock, a full memory bus) slows the yardstick too, and leaves the ratio. With three busy processes a core the
   medians of two runs differed by 10 %, these values by 0.5 %.
2. The blocks of the two runs are compared by Mann and Whitney's test, shifted by the tolerance: the null hypothesis is
   "NEW is at most `tolerance` slower". The size comes with Hodges and Lehmann's estimate and its interval.
   Where an engine runs on several threads, only blocks count while the cores were near to each other: a host that moves a
   virtual machine's cores apart doubles the time of a small network for seconds, in which one thread sees nothing.
3. p-values are corrected for the number of comparisons (Holm), so that the chance of any false alarm in a file is bounded.

It assumes that blocks are exchangeable within a run, and that two runs of the same code differ by less than the tolerance
for reasons no run can see from inside (where the pages of this process happened to lie, the neighbors of that minute).
`benchmarks/aa.py` measures how often that fails, and how often a real slowdown of 10 % is found. What slows only the tail
is not seen here: the percentiles in the report are there for that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import MeasurementError
from toolkit.harness.measurement import Measurement
from toolkit.harness.paired import bootstrap, holm, mcnemar
from toolkit.harness.results import Results
from toolkit.harness.statistics import by_block, shift
from toolkit.types import Frozen

TOLERANCE = 0.03
LEVEL = 0.05
LEAST = 6  # blocks a side
LOW = 0.1  # the quantile of a block that stands for it
Key = tuple[str, int, str, str]
Word = Literal["slower", "faster", "worse", "better", "no change shown", "cannot tell"]


class Difference(Frozen, frozen=True):
    """One comparison. `change`, `low`, `high`: NEW over OLD minus 1 (time), or share of right answers NEW minus OLD."""

    engine: str
    what: str  # "batch 8, with-transfers, single-stream", or "top-1"
    change: float
    low: float
    high: float
    p: float  # corrected, for a change for the worse beyond the tolerance
    word: Word
    note: str = ""

    @property
    def alarm(self) -> bool:
        return self.word in ("slower", "worse")

    @property
    def text(self) -> str:
        span = f"{self.change:+.1%} [{self.low:+.1%}, {self.high:+.1%}]" if math.isfinite(self.change) else self.note
        return f"{self.engine}, {self.what}: {self.word}, {span}"


class Comparison(Frozen, frozen=True):
    """All differences between two files, what only one of them holds, and what a reader must know."""

    differences: tuple[Difference, ...]
    tolerance: float
    notes: tuple[str, ...] = ()

    @property
    def regressed(self) -> bool:
        return any(d.alarm for d in self.differences)

    @property
    def headline(self) -> str:
        """The outcome in a line."""
        worse = [d for d in self.differences if d.alarm]
        better = [d for d in self.differences if d.word in ("faster", "better")]
        told = [d for d in self.differences if d.word != "cannot tell"]
        if worse:
            return f"{len(worse)} of {len(self.differences)} comparisons got worse: {worse[0].text}"
        if not told:
            return "No conclusion: measure longer"
        gain = f"; {len(better)} got better" if better else ""
        gain += f"; {len(self.differences) - len(told)} are undecided" if len(told) < len(self.differences) else ""
        return f"No regression beyond {self.tolerance:.0%} in {len(told)} comparisons{gain}"

    @property
    def markdown(self) -> str:
        """For a pull request; ends in a newline."""
        lines = [f"### {self.headline}", ""]
        lines += ["| engine | what | change | 95 % interval | |", "|---|---|---:|---|---|"]
        for d in self.differences:
            shown = (f"{d.change:+.1%}", f"{d.low:+.1%} to {d.high:+.1%}") if math.isfinite(d.change) else ("-", d.note)
            lines.append(f"| {d.engine} | {d.what} | {shown[0]} | {shown[1]} | {'**' + d.word + '**' if d.alarm else d.word} |")
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)]).rstrip() + "\n"


def compare(old: Results, new: Results, *, tolerance: float = TOLERANCE, level: float = LEVEL) -> Comparison:
    """Raises MeasurementError where the two cannot be compared: another device, clock or scenario, or nothing in common."""
    before, after = _keyed(old), _keyed(new)
    shared = [key for key in before if key in after]
    _refuse(old, new, shared)
    yardstick = old.yardstick is not None and old.yardstick == new.yardstick
    raw = [_shift(before[key], after[key], yardstick, tolerance) for key in shared]
    corrected = holm([d.p for d in raw])
    differences = [_judge(d, p, tolerance, level) for d, p in zip(raw, corrected, strict=True)]
    return Comparison(
        differences=(*differences, *_accuracy(old, new)),
        tolerance=tolerance,
        notes=(*_notes(old, new, yardstick), *_unpaced([(before[key], after[key]) for key in shared] if yardstick else [])),
    )


def _keyed(results: Results) -> dict[Key, Measurement]:
    """The measurement under each key; of several trials (offline) the one with the most images a second. No server trials."""
    found: dict[Key, Measurement] = {}
    for m in results.measurements:
        if m.scenario == "server" or "loadgen" in m.settings:
            continue  # latencies under load follow the rate: two rates are two questions
        if m.key not in found or (m.throughput or 0) > (found[m.key].throughput or 0):
            found[m.key] = m
    return found


def _refuse(old: Results, new: Results, shared: list[Key]) -> None:
    if old.environment.device != new.environment.device:
        what = f"OLD was measured on {old.environment.device}, NEW on {new.environment.device}"
        raise MeasurementError(what, remedy="Compare results of one device: measure OLD again on this one")
    for engine in sorted({m.engine for m in old.measurements} & {m.engine for m in new.measurements}):
        for name in ("clock", "scenario"):
            one, other = ({str(getattr(m, name)) for m in r.of(engine)} for r in (old, new))
            if not one & other:
                what = f"{engine}: the {name} is {', '.join(sorted(one))} in OLD and {', '.join(sorted(other))} in NEW"
                raise MeasurementError(what, remedy=f"Measure both under one {name}: toolkit bench ENGINE...")
    if not shared and not _pairs(old, new):
        what = "the two files have no engine, batch, clock and scenario in common that can be compared"
        raise MeasurementError(what, remedy="Measure the same engines and batches twice, single-stream or offline")


def _values(measurement: Measurement, yardstick: bool) -> NDArray[np.float64]:
    """log(time) of each block, over the yardstick beside it where there is one."""
    samples, groups = measurement.seconds, measurement.groups
    if measurement.scenario == "offline":  # blocks are streams there: take ten stretches of time for an image instead
        samples = samples / (measurement.batch * measurement.streams)
        groups = np.sort(np.arange(len(samples)) % 10)
    times = by_block(samples, groups, LOW)
    if yardstick:
        times = times / np.array([min(block.yardstick_ns) for block in measurement.blocks])
    values: NDArray[np.float64] = np.log(times)
    return values


def _paced(measurement: Measurement) -> bool:
    """Whether every block has a time of the reference kernel that can be divided by."""
    return all(min(block.yardstick_ns, default=0) > 0 for block in measurement.blocks)


def _threads(results: Results, engine: str) -> int:
    return int((results.manifests.get(engine, {}).get("settings") or {}).get("threads", 1))


def _shift(old: Measurement, new: Measurement, yardstick: bool, tolerance: float) -> Difference:
    what = f"batch {old.batch}, {old.clock}, {old.scenario}"
    empty = {"change": math.nan, "low": math.nan, "high": math.nan, "p": 1.0}
    note = "; ".join(f"{side}: {m.failure}" for side, m in (("OLD", old), ("NEW", new)) if m.failure)
    yardstick = yardstick and old.scenario == "single-stream" and _paced(old) and _paced(new)  # both, or neither
    values = [_values(m, yardstick) for m in (old, new)]
    kept = [v[[block.near for block in m.blocks]] if m.apart else v for m, v in zip((old, new), values, strict=True)]
    if not note and min(map(len, kept)) < LEAST:
        count = f"{len(kept[0])} of {len(values[0])} blocks in OLD and {len(kept[1])} of {len(values[1])} in NEW"
        far = f"the two cores were close to each other in only {count}: measure longer, or with --threads 1"
        note = far if min(map(len, values)) >= LEAST else f"{min(map(len, values))} blocks are too few, measure longer"
    if note:
        return Difference(engine=old.engine, what=what, word="cannot tell", note=note, **empty)
    found = shift(*kept, above=math.log1p(tolerance))
    change, low, high = (math.expm1(x) for x in found[:3])
    return Difference(engine=old.engine, what=what, change=change, low=low, high=high, p=found.p, word="no change shown")


def _judge(found: Difference, p: float, tolerance: float, level: float) -> Difference:
    if found.word == "cannot tell":
        return found
    word: Word = "slower" if p < level else "faster" if found.high < -tolerance else "no change shown"
    return Difference(
        engine=found.engine, what=found.what, change=found.change, low=found.low, high=found.high, p=p, word=word, note=found.note
    )


def _pairs(old: Results, new: Results) -> list[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]]:
    """(engine, right in OLD, right in NEW) for every engine that answered the same labeled images in both."""
    before = {(a.engine, a.data): a.ranks for a in old.answers if a.ranks}
    found = [(a.engine, before.get((a.engine, a.data)), a.ranks) for a in new.answers if a.ranks]
    return [(e, np.array(b) == 0, np.array(a) == 0) for e, b, a in found if b is not None and len(b) == len(a)]


def _accuracy(old: Results, new: Results) -> list[Difference]:
    """Top-1 of the same engine on the same images: McNemar, corrected for the number of engines."""
    rows = []
    for engine, before, after in _pairs(old, new):
        broken, mended = int((before & ~after).sum()), int((after & ~before).sum())
        rows.append((engine, broken, mended, len(before)))
    corrected = holm([mcnemar(b, m) for _, b, m, _ in rows])
    differences = []
    for (engine, broken, mended, n), p in zip(rows, corrected, strict=True):
        low, high = bootstrap(broken, mended, n)
        word: Word = "no change shown" if p >= 0.05 else "worse" if broken > mended else "better"
        change = (mended - broken) / n
        differences.append(Difference(engine=engine, what="top-1", change=change, low=low, high=high, p=p, word=word))
    return differences


def _notes(old: Results, new: Results, yardstick: bool) -> list[str]:
    notes = []
    if not yardstick:
        notes.append(
            "The reference kernel differs or is missing: raw times were compared, so changes of the machine's speed count too."
        )
    changed = {
        name: (old.environment.versions.get(name, "none"), new.environment.versions.get(name, "none"))
        for name in sorted({*old.environment.versions, *new.environment.versions})
    }
    notes += [f"{name}: {a} in OLD, {b} in NEW." for name, (a, b) in changed.items() if a != b]
    for name in sorted(old.manifests.keys() & new.manifests.keys()):
        a, b = _threads(old, name), _threads(new, name)
        notes += [f"{name}: {a} threads in OLD, {b} in NEW."] if a != b else []
    notes += [f"Only in {side}: {', '.join(sorted(names))}." for side, names in _lonely(old, new)]
    for side, results in (("OLD", old), ("NEW", new)):
        troubles = sorted({flag.trouble for m in results.measurements for flag in m.flags})
        notes += [f"{side} is flagged: {', '.join(troubles)}."] if troubles else []
    return notes


def _unpaced(pairs: Sequence[tuple[Measurement, Measurement]]) -> list[str]:
    """Which rows are compared by raw times though the runs have a reference kernel."""
    return [
        f"{old.engine} batch {old.batch} ({old.clock}): a block lacks the reference kernel, so raw times were compared."
        for old, new in pairs
        if old.scenario == "single-stream" and not (_paced(old) and _paced(new))
    ]


def _lonely(old: Results, new: Results) -> list[tuple[str, set[str]]]:
    sides = [{f"{m.engine} batch {m.batch} ({m.clock}, {m.scenario})" for m in r.measurements} for r in (old, new)]
    return [(side, names) for side, names in (("OLD", sides[0] - sides[1]), ("NEW", sides[1] - sides[0])) if names]
