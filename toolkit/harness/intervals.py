"""Intervals of what a bench derives: percentiles, throughput and ratios between engines, each with its 95 % interval.

A percentile's interval comes from order statistics (`statistics.quantile`). Throughput and ratios are bootstrapped over clusters
of samples: launches, or blocks where the engine was opened once. All engines of a run draw one weight a cluster (Poisson
bootstrap; Hanley and MacGibbon, Comput. Methods Programs Biomed. 83 (2006), 57-62), so that what the machine did in a round
counts for both sides of a ratio and cancels out of it. With few clusters a bootstrap's percentiles lie too near to each other:
they are moved out as Student's t asks for (Hesterberg, "What Teachers Should Know About the Bootstrap", Am. Stat. 69, 2015).
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from toolkit.harness.measurement import Measurement
from toolkit.harness.statistics import Estimate, Floats, Ints, quantile

RESAMPLES, SEED = 1000, 20150101
STRETCHES = 10  # of time, that an offline trial's samples are put into
LEAST = 6  # clusters, below which there is no interval: with 4 its coverage would be 85 %
AT_ONCE = 2_000_000  # weights in memory at a time


def percentile(measurement: Measurement, q: float) -> Estimate | None:
    """Seconds a call, with its interval; None without samples, or where there are too few for one to lie beyond it."""
    samples = measurement.seconds
    if len(samples) * (1 - q) < 1 - 1e-9:
        return None
    return quantile(samples, q, measurement.clusters)


def throughput(measurement: Measurement) -> Estimate | None:
    """Images a second, with its interval; None where nothing was answered.

    The interval is open where the samples do not tell it: under LoadGen and in the server scenario they count from an arrival.
    """
    value = measurement.throughput
    if value is None:
        return None
    clusters = clusters_of(measurement)
    if clusters is None or (used := len(np.unique(clusters[1]))) < LEAST:
        return Estimate(value, 0.0, math.inf)
    rates = _rates(measurement, clusters)
    scale = value / _rate(measurement)  # streams at once, and what lies between calls
    return _between(value, rates * scale, used)


def ratio(slow: Measurement, fast: Measurement, q: float = 0.5) -> Estimate | None:
    """How many times as fast `fast` is: its q-quantile of the time for a call under that of `slow`, with its interval.

    None where the two were not measured on the same terms. Only measurements of one run share the weights of a round; others are
    resampled apart.
    """
    if (slow.batch, slow.clock, slow.scenario) != (fast.batch, fast.clock, fast.scenario):
        return None
    if not (len(slow.seconds) and len(fast.seconds)):
        return None
    value = float(np.quantile(slow.seconds, q) / np.quantile(fast.seconds, q))
    sides = [clusters_of(m) for m in (slow, fast)]
    used = min(0 if side is None else len(np.unique(side[1])) for side in sides)
    if used < LEAST or sides[0] is None or sides[1] is None:
        return Estimate(value, 0.0, math.inf)
    together = _one_run(slow, fast)
    above = _quantiles(slow, sides[0], q, 0)
    below = _quantiles(fast, sides[1], q, 0 if together else 1)
    return _between(value, above / below, used)


def _one_run(a: Measurement, b: Measurement) -> bool:
    """Whether the two took turns in the same rounds."""
    return bool(a.interleaved_with) and a.interleaved_with == b.interleaved_with and a.seed == b.seed


def clusters_of(measurement: Measurement) -> tuple[str, Ints] | None:
    """(what a cluster is, the cluster of each sample); None where samples are no service times and can tell no interval."""
    if "loadgen" in measurement.settings or measurement.scenario == "server" or not len(measurement.seconds):
        return None
    if measurement.scenario == "offline":  # a block is a stream: its samples lie one after the other
        parts = [np.arange(len(b.samples_ns)) * STRETCHES // max(1, len(b.samples_ns)) for b in measurement.blocks]
        return "stretch", np.concatenate(parts)
    kind = "launch" if len({block.launch for block in measurement.blocks}) > 1 else "block"
    return kind, measurement.clusters


@lru_cache(maxsize=8)
def _weights(kind: str, clusters: int, stream: int) -> NDArray[np.int16]:
    """Poisson(1) for each resample and cluster, int16 [RESAMPLES, clusters]; the first columns are the same for any number."""
    seed = [SEED, stream, *kind.encode()]
    made = np.random.default_rng(seed).poisson(1.0, (clusters, RESAMPLES)).T
    return made.astype(np.int16)


def _weights_of(clusters: tuple[str, Ints], stream: int) -> NDArray[np.int16]:
    return _weights(clusters[0], int(clusters[1].max()) + 1, stream)


def _quantiles(measurement: Measurement, clusters: tuple[str, Ints], q: float, stream: int) -> Floats:
    """The q-quantile of each resample, float64 [RESAMPLES]; NaN where a resample is empty. Kept beside the samples."""
    kept: dict[tuple[float, int], Floats] = measurement.__dict__.setdefault("_resampled", {})
    if (q, stream) in kept:
        return kept[q, stream]
    order = np.argsort(measurement.seconds, kind="stable")
    ordered, own = measurement.seconds[order], clusters[1][order]
    weights = _weights_of(clusters, stream)
    found = np.empty(RESAMPLES)
    step = max(1, AT_ONCE // len(ordered))
    for first in range(0, RESAMPLES, step):
        sums = np.cumsum(weights[first : first + step, own], axis=1, dtype=np.int64)
        whole = sums[:, -1:]
        at = np.argmax(sums >= np.maximum(1, np.ceil(q * whole)), axis=1)
        found[first : first + step] = np.where(whole[:, 0] > 0, ordered[at], np.nan)
    kept[q, stream] = found
    return found


def _rates(measurement: Measurement, clusters: tuple[str, Ints]) -> Floats:
    """Images a second of each resample, were calls all that takes time."""
    weights = _weights_of(clusters, 0)
    width = weights.shape[1]
    times = np.bincount(clusters[1], weights=measurement.seconds, minlength=width)
    counts = np.bincount(clusters[1], minlength=width)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates: Floats = measurement.batch * (weights @ counts) / (weights @ times)
    return rates


def _rate(measurement: Measurement) -> float:
    return float(measurement.batch * len(measurement.seconds) / measurement.seconds.sum())


def _between(value: float, resampled: Floats, clusters: int) -> Estimate:
    kept = resampled[np.isfinite(resampled)]
    if not len(kept):
        return Estimate(value, 0.0, math.inf)
    tail = NormalDist().cdf(-math.sqrt(clusters / (clusters - 1)) * student(clusters - 1))
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Estimate(value, float(min(low, value)), float(max(high, value)))


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t (Abramowitz and Stegun 26.7.5; the first three by their closed forms)."""
    if freedom <= 3:
        return (12.7062, 4.3027, 3.1824)[freedom - 1]
    z, n = NormalDist().inv_cdf(0.975), freedom
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + terms[0] / n + terms[1] / n**2 + terms[2] / n**3
