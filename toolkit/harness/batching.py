"""Batching: how a server should put calls together for an engine, read off a measured sweep, or assumed and said to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolkit.errors import MeasurementError
from toolkit.harness.measurement import Measurement
from toolkit.harness.results import Results
from toolkit.harness.server import best_rate
from toolkit.manifest import Manifest
from toolkit.types import Frozen

NEAR = 0.9  # of the best rate: a batch size that a server may as well send
GAIN = 1.05  # further calls at once must bring so much
WAIT = 0.002  # seconds: the batcher's own default
_AGAIN = "Measure it: toolkit bench ENGINE --scenario offline -o results.json"


class Batching(Frozen, frozen=True):
    """`preferred` batch sizes from the smallest up, the longest wait of a call in seconds, and how many calls run at once.

    `rate` is that of one call after another at the largest preferred batch, in images a second; None where it is not known. `how`
    says in words what each was taken from; `measured` whether any of it was.
    """

    max_batch: int
    preferred: tuple[int, ...] = ()
    max_wait: float = WAIT
    instances: int = 1
    measured: bool = False
    rate: float | None = None
    how: tuple[str, ...] = ()


def assumed(manifest: Manifest) -> Batching:
    """Without a sweep: the batch sizes that the engine was built to be fast at, and the batcher's default wait."""
    preferred = tuple(sorted({profile.opt for profile in manifest.profiles if profile.opt > 1}))
    shown = f"batches of {', '.join(map(str, preferred))} as built for" if preferred else "no preferred batch"
    how = f"not measured: {shown}, one call at once, and a wait of {WAIT * 1e3:g} ms"
    return Batching(max_batch=manifest.largest, preferred=preferred, how=(how,))


def batching_of(manifest: Manifest, results: Results) -> Batching:
    """What a bench of this very engine says. Raises MeasurementError: it is not in `results`, or another build of it is.

    Preferred are the batches within 10 % of the best rate; where batch 1 is, batching gains nothing and nobody waits. A call
    waits as long as in the server trial that kept its bound; without one no longer than the engine takes for a single image.
    """
    found = _of(manifest, results)
    most = manifest.largest
    rates = _rates(found, most)
    if not rates:
        what = f"the results have no rate of {manifest.name} at a batch that it takes (1 to {most})"
        raise MeasurementError(what, remedy=_AGAIN)
    best = max(rates, key=lambda batch: rates[batch])
    good = tuple(batch for batch in sorted(rates) if rates[batch] >= NEAR * rates[best])
    instances, streams = _instances(found, best)
    said = [f"batch {best} answers {rates[best]:,.0f} images/s, the most of {', '.join(map(str, sorted(rates)))}", streams]
    if doubts := sorted({flag.trouble for m in found for flag in m.flags}):
        said.append(f"the measurements are flagged: {', '.join(doubts)}")
    if good[0] == 1:
        said.append(f"batch 1 is within {1 - NEAR:.0%} of it: nothing is gained by waiting")
        alone = rates[1]
        return Batching(max_batch=most, max_wait=0.0, instances=instances, measured=True, rate=alone, how=tuple(said))
    wait, why = _wait(found)
    how, top = (*said, why), rates[good[-1]]
    return Batching(
        max_batch=most, preferred=good, max_wait=wait, instances=instances, measured=True, rate=top, how=how
    )


def _of(manifest: Manifest, results: Results) -> list[Measurement]:
    """Those of this very engine: of several of one name a bench keeps each under its name and target."""
    same = [name for name, kept in results.manifests.items() if _is(manifest, kept)]
    found = [m for name in same for m in results.of(name) if m.failure is None and m.clock == "with-transfers"]
    if found:
        return found
    if manifest.name in results.manifests:
        raise MeasurementError(f"the results are of another build of {manifest.name} than this engine", remedy=_AGAIN)
    others = ", ".join(results.engines) or "nothing"
    raise MeasurementError(f"the results have no measurement of {manifest.name}; they hold {others}", remedy=_AGAIN)


def _is(manifest: Manifest, kept: Mapping[str, Any]) -> bool:
    hashes = kept.get("hashes")
    digest = hashes.get("file") if isinstance(hashes, dict) else None
    return kept.get("target") == manifest.target and digest is not None and digest == manifest.hashes.get("file")


def _rates(found: list[Measurement], most: int) -> dict[int, float]:
    """Images a second of one caller, by batch."""
    rates: dict[int, float] = {}
    for m in found:
        rate = m.throughput
        if m.scenario != "server" and m.streams == 1 and m.batch <= most and rate:
            rates[m.batch] = max(rates.get(m.batch, 0.0), rate)
    return rates


def _instances(found: list[Measurement], batch: int) -> tuple[int, str]:
    """How many calls at once pay, at that batch."""
    rates = {m.streams: m.throughput for m in found if m.scenario == "offline" and m.batch == batch and m.throughput}
    if len(rates) < 2:
        return 1, "calls at once were not measured: one"
    kept = min(rates)
    for streams in sorted(rates):
        if rates[streams] >= GAIN * rates[kept]:
            kept = streams
    return kept, f"{kept} call(s) at once, of {', '.join(map(str, sorted(rates)))} measured"


def _wait(found: list[Measurement]) -> tuple[float, str]:
    trial = best_rate(found)
    wait = None if trial is None else trial.settings.get("max_wait_s")
    if trial is not None and isinstance(wait, (int, float)):
        bound = (trial.bound_ns or 0) / 1e6
        return float(wait), f"a wait of {wait * 1e3:.3g} ms kept p99 under {bound:g} ms at {trial.offered:,.0f} images/s"
    least = min((m for m in found if m.scenario != "server" and len(m.seconds)), key=lambda m: m.batch)
    alone = float(np.median(least.seconds))
    return alone, f"a wait of {alone * 1e3:.3g} ms, the engine's own median at batch {least.batch}; no server trial was measured"
