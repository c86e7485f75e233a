"""Summary: what a file of results says of each engine, as the table, the page and the Markdown tell it alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from toolkit.errors import MeasurementError
from toolkit.harness import intervals
from toolkit.harness.footprint import Footprint
from toolkit.harness.measurement import Measurement
from toolkit.harness.results import Results
from toolkit.harness.server import holds
from toolkit.harness.statistics import Estimate
from toolkit.harness.verdict import Verdict
from toolkit.report.amounts import times
from toolkit.types import Frozen

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)


class EngineSummary(Frozen, frozen=True):
    """One engine. Times in milliseconds at the smallest batch measured; `speedup` is against the report's baseline.

    `spans`: the 95 % interval of `p50`, `p99`, `speedup` and `throughput`, in their units; an end may be infinite.
    """

    name: str
    precision: str
    target: str
    style: int  # the engine's color and marker in every chart
    latency: Measurement | None = None
    p50: float | None = None
    p99: float | None = None
    speedup: float | None = None
    throughput: float | None = None
    best_batch: int | None = None
    top1: float | None = None  # 0 to 1
    verdict: Verdict | None = None
    trouble: tuple[str, ...] = ()  # why its timings are unsteady, or ended early
    absent: str = ""  # why it has no timings at all
    spans: dict[str, tuple[float, float]] = {}
    footprint: Footprint | None = None
    images_per_joule: float | None = None
    watts: float | None = None

    @property
    def unsteady(self) -> bool:
        """Whether figures that are shown are not to be trusted as they stand."""
        return bool(self.trouble) and (self.latency is not None or self.throughput is not None)


def merge(results: Sequence[Results]) -> Results:
    """Several files as one. Raises MeasurementError where there is none, or they come from different devices."""
    if not results:
        raise MeasurementError("there are no results to report", remedy="Measure first: toolkit bench ENGINE... -o results.json")
    first, *others = results
    for other in others:
        if other.environment.device != first.environment.device:
            here, there = first.environment.device, other.environment.device
            what = f"results of two devices, '{here}' and '{there}', do not make one report"
            raise MeasurementError(what, remedy="Report them one by one")
    last = {(v.engine, v.reference): v for r in results for v in r.verdicts}
    return msgspec.structs.replace(
        first,
        measurements=tuple(m for r in results for m in r.measurements),
        answers=tuple({(a.engine, a.data): a for r in results for a in r.answers}.values()),
        verdicts=tuple(last.values()),
        moments=tuple(m for r in results for m in r.moments),
        manifests={name: m for r in results for name, m in r.manifests.items()},
        peaks=next((r.peaks for r in results if r.peaks), None),
        work={name: w for r in results for name, w in r.work.items()},
        layers=tuple(layers for r in results for layers in r.layers),
        failures={name: why for r in results for name, why in r.failures.items()},
        footprints={name: size for r in results for name, size in r.footprints.items()},
        ranges={name: found for r in results for name, found in r.ranges.items()},
        notes=tuple(dict.fromkeys(note for r in results for note in r.notes)),
    )


def latencies(results: Results) -> list[Measurement]:
    """One closed-loop measurement an engine that has samples: the smallest batch, the widest clock that all of them share."""
    found = [m for m in results.measurements if m.scenario == "single-stream" and len(m.seconds)]
    clocks = [{m.clock for m in found if m.engine == name} for name in dict.fromkeys(m.engine for m in found)]
    shared = set.intersection(*clocks) if clocks else set()
    clock = next((c for c in ("with-transfers", "end-to-end", "device") if c in shared), None)
    chosen: dict[str, Measurement] = {}
    for m in found:
        if (clock is None or m.clock == clock) and (m.engine not in chosen or m.batch < chosen[m.engine].batch):
            chosen[m.engine] = m
    return list(chosen.values())


def baseline(results: Results) -> str | None:
    """What speed-ups count from: the verdicts' reference where it was timed, else the first engine that was."""
    timed = [m.engine for m in latencies(results)]
    named = [v.reference for v in results.verdicts if v.reference in timed]
    return next(iter([*named, *timed]), None)


def counted(summary: Sequence[EngineSummary]) -> str:
    """`3 engines and the reference`, for headings."""
    engines = sum(row.name != "reference" for row in summary)
    return f"{engines} engine{'s' * (engines != 1)}{' and the reference' * (engines != len(summary))}"


def rows(results: Results) -> list[EngineSummary]:
    """A row an engine, in the order measured."""
    timed = {m.engine: m for m in latencies(results)}
    base = timed.get(baseline(results) or "")
    names = list(results.engines) + [n for v in results.verdicts for n in (v.reference, v.engine)]
    return [_row(name, i, results, timed.get(name), base) for i, name in enumerate(dict.fromkeys(names))]


def _row(name: str, style: int, results: Results, latency: Measurement | None, base: Measurement | None) -> EngineSummary:
    every = results.of(name)
    counted = [m for m in every if m.throughput and (m.scenario != "server" or holds(m))]  # a rate beyond the bound is none
    fast = max(counted, key=lambda m: m.throughput or 0, default=None)
    p50, p99 = (_milliseconds(latency, 0.5), _milliseconds(latency, 0.99)) if latency else (None, None)
    speedup = intervals.ratio(base, latency) if base and latency else None
    rate = intervals.throughput(fast) if fast else None
    found = {"p50": p50, "p99": p99, "speedup": speedup, "throughput": rate}
    manifest = results.manifests.get(name, {})
    verdict = next((v for v in results.verdicts if v.engine == name), None)
    trouble = [f"{m.scenario}, batch {m.batch}: {flag.text}" for m in every for flag in m.flags]
    trouble += [m.failure for m in every if m.failure]
    trouble += [results.failures[name]] if name in results.failures and every else []
    frugal = max((m for m in every if m.images_per_joule), key=lambda m: m.images_per_joule or 0, default=None)
    return EngineSummary(
        name=name,
        precision=every[0].precision if every else str(manifest.get("precision", "")),
        target=every[0].target if every else str(manifest.get("target", "")),
        style=style,
        latency=latency,
        **{key: None if estimate is None else estimate.value for key, estimate in found.items()},
        spans={key: (estimate.low, estimate.high) for key, estimate in found.items() if estimate is not None},
        best_batch=fast.batch if fast else None,
        top1=_top1(name, results, verdict),
        verdict=verdict,
        trouble=tuple(dict.fromkeys(trouble)),
        absent="" if every else results.failures.get(name, ""),
        footprint=results.footprints.get(name),
        images_per_joule=frugal.images_per_joule if frugal else None,
        watts=frugal.watts if frugal else None,
    )


def _milliseconds(measurement: Measurement, share: float) -> Estimate | None:
    found = intervals.percentile(measurement, share)
    return None if found is None else Estimate(*(1e3 * value for value in found))


def _top1(name: str, results: Results, verdict: Verdict | None) -> float | None:
    if verdict is not None and verdict.top1 is not None:
        return verdict.top1[1]
    as_reference = next((v.top1[0] for v in results.verdicts if v.reference == name and v.top1), None)
    if as_reference is not None:
        return as_reference
    ranks = next((a.ranks for a in results.answers if a.engine == name and a.ranks), None)
    return float(np.mean(np.equal(ranks, 0))) if ranks is not None else None


def quantile(measurement: Measurement, share: float) -> float | None:
    """Milliseconds; None where there are too few calls for one to lie beyond it."""
    if len(measurement.seconds) * (1 - share) < 1 - 1e-9:
        return None
    return float(np.quantile(measurement.seconds, share)) * 1e3


def headline(summary: Iterable[EngineSummary], base: str | None) -> list[str]:
    """The outcome in a sentence or two an engine: accuracy first, then speed, then what speaks against the numbers."""
    lines = []
    for row in summary:
        if row.verdict is None:
            continue
        state = row.verdict.state.replace("refused", "REFUSED")
        faster = f" It is {times(row.speedup)} as fast as {base}." if row.speedup is not None and row.name != base else ""
        lines.append(f"{row.name}: {state}. {row.verdict.text[0].upper()}{row.verdict.text[1:]}.{faster}")
    return lines
