"""Statistics of samples taken in blocks. numpy and the standard library only; none of it assumes a normal distribution.

Samples inside a block resemble each other more than samples of different blocks do: taken as independent they would give
intervals that are far too narrow. So the number of samples is first lowered to the effective one (`effective_share`).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import MeasurementError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)


class Estimate(NamedTuple):
    """A value and its 95 % confidence interval; an end that the samples are too few to bound is infinite."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """The interval's width as a share of the value."""
        return (self.high - self.low) / self.value if self.value else math.inf


def quantile(samples: Floats, q: float, groups: Ints | None = None, *, confidence: float = 0.95) -> Estimate:
    """The q-quantile (linear between order statistics) of samples float64 [n], with a distribution-free interval.

    The ends are order statistics whose ranks bracket q with the given probability under the binomial law. `groups` [n]
    tells the block of each sample; with it the binomial has the effective number of samples (Woodruff, JASA 47 (1952),
    635-646). Raises MeasurementError on no samples.
    """
    n = len(samples)
    if n == 0:
        raise MeasurementError("there are no samples to take a quantile of")
    ordered = np.sort(samples)
    value = float(np.quantile(ordered, q))
    share = 1.0 if groups is None else effective_share(samples <= value, groups)
    low, high = bracket(max(1, round(n * share)), q, confidence)
    # ranks of the effective sample, carried over to the whole one
    lower = math.floor(low / share) if low > 0 else 0
    upper = math.ceil(high / share) if high > 0 else 0
    ends = ordered[lower - 1] if lower > 0 else 0.0, ordered[upper - 1] if 0 < upper <= n else math.inf
    return Estimate(value, float(ends[0]), float(ends[1]))


def bracket(n: int, q: float, confidence: float = 0.95) -> tuple[int, int]:
    """Ranks (from 1) between which the q-quantile of n samples lies; 0: no rank bounds it on that side."""
    tail = (1 - confidence) / 2
    cdf = np.cumsum(binomial(n, q))
    low = int(np.searchsorted(cdf, tail, side="right"))  # P(X < low) = cdf[low - 1] <= tail
    high = int(np.searchsorted(cdf, 1 - tail)) + 1  # P(X >= high) = 1 - cdf[high - 1] <= tail
    return low, high if high <= n else 0


def binomial(n: int, p: float) -> Floats:
    """P(X = k) for k = 0..n, float64 [n + 1], 0 < p < 1."""
    k = np.arange(n + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    shape: Floats = np.exp(logs[n] - logs - logs[::-1] + k * math.log(p) + (n - k) * math.log1p(-p))
    return shape


def effective_share(hit: NDArray[np.bool_], groups: Ints) -> float:
    """Effective over actual number of samples, in (0, 1], for the share of `hit`: the inverse of the design effect.

    The variance of the share comes from the spread of whole blocks (ratio estimator; Kish, Survey Sampling, 1965).
    """
    blocks = int(groups[-1]) + 1 if len(groups) else 0
    p = float(hit.mean())
    if blocks < 2 or not 0 < p < 1:
        return 1.0
    size = np.bincount(groups, minlength=blocks)
    excess = np.bincount(groups, weights=hit, minlength=blocks) - p * size
    variance = blocks / (blocks - 1) * float((excess**2).sum()) / len(hit) ** 2
    # no fewer than one a block, as that is what blocks that are wholly alike inside amount to
    return min(1.0, max(p * (1 - p) / len(hit) / variance, blocks / len(hit))) if variance > 0 else 1.0


class Shift(NamedTuple):
    """How far one set lies above another: the median of all pairwise differences, its interval, and a one-sided p."""

    value: float
    low: float
    high: float
    p: float


def shift(old: Floats, new: Floats, *, above: float = 0.0, confidence: float = 0.95) -> Shift:
    """Hodges and Lehmann's estimate of new - old with its Mann-Whitney interval; `p` for "new lies more than `above` over old".

    Assumes that the values of each set are independent and that the two distributions differ by a shift. The normal
    approximation of U, with its continuity correction, is used from 6 values a side up. Raises MeasurementError below.
    """
    m, n = len(old), len(new)
    if min(m, n) < 6:
        raise MeasurementError(f"{min(m, n)} blocks are too few to compare", remedy="Measure longer: toolkit bench --seconds 60")
    pairs = np.sort((new[:, None] - old[None, :]).ravel())
    normal = NormalDist()
    values = np.concatenate([old, new - above])
    _, ties = np.unique(values, return_counts=True)
    whole = m + n
    deviation = math.sqrt(m * n / 12 * (whole + 1 - float((ties**3 - ties).sum()) / (whole * (whole - 1))))
    count = float((pairs > above).sum()) + 0.5 * float((pairs == above).sum())
    z = (count - m * n / 2 - 0.5) / deviation if deviation else -math.inf
    rank = max(1, math.floor(m * n / 2 + normal.inv_cdf((1 - confidence) / 2) * math.sqrt(m * n * (whole + 1) / 12)))
    return Shift(float(np.median(pairs)), float(pairs[rank - 1]), float(pairs[m * n - rank]), 1 - normal.cdf(z))


class Trend(NamedTuple):
    """A monotone movement: its change from first to last as a share of the median, and its two-sided p."""

    change: float
    p: float


def trend(values: Floats) -> Trend:
    """Mann and Kendall's test for a trend over equal steps, float64 [n], with Theil and Sen's slope; below 8 values p is 1."""
    n = len(values)
    if n < 8:
        return Trend(0.0, 1.0)
    i, j = np.triu_indices(n, 1)
    differences = values[j] - values[i]
    slope = float(np.median(differences / (j - i)))
    score = float(np.sign(differences).sum())
    _, ties = np.unique(values, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    z = abs(score) / math.sqrt(variance) if variance > 0 else 0.0
    middle = float(np.median(values))
    return Trend(slope * (n - 1) / middle if middle else 0.0, 2 * (1 - NormalDist().cdf(z)))


def by_block(samples: Floats, groups: Ints, q: float = 0.5) -> Floats:
    """The q-quantile of each block, float64 [blocks]."""
    if not len(samples):
        return np.empty(0)
    return np.array([np.quantile(part, q) for part in np.split(samples, np.flatnonzero(np.diff(groups)) + 1)])
