"""Tests on pairs: two classifiers, the same images, right or wrong. numpy and the standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import MeasurementError
from toolkit.types import Frozen

RESAMPLES = 10_000


class PairedTest(Frozen, frozen=True):
    """The outcome. Differences are engine minus reference in share of right answers, -1 to 1."""

    broken: int  # images that only the reference answers rightly
    mended: int  # images that only the engine answers rightly
    difference: float
    interval: tuple[float, float]  # paired bootstrap, 95 % two-sided
    p: float  # McNemar, exact, two-sided
    lower: float  # one-sided 95 % lower bound (Tango's score): the loss is no greater than -lower
    needed: int  # images that would settle it, with 90 % power, were the shares the observed ones


def paired_test(before: NDArray[np.bool_], after: NDArray[np.bool_], *, margin: float, seed: int = 0) -> PairedTest:
    """`before` and `after`: bool [n], whether the reference and the engine were right. `margin` as a share, 0 to 1."""
    n = len(before)
    if n == 0 or len(after) != n:
        raise MeasurementError(f"cannot pair {n} answers with {len(after)}", remedy="Give both engines the same images")
    broken, mended = int((before & ~after).sum()), int((after & ~before).sum())
    return PairedTest(
        broken=broken,
        mended=mended,
        difference=(mended - broken) / n,
        interval=bootstrap(broken, mended, n, seed=seed),
        p=mcnemar(broken, mended),
        lower=lower_bound(broken, mended, n),
        needed=needed(broken, mended, n, margin),
    )


def mcnemar(broken: int, mended: int) -> float:
    """Exact two-sided p: of `broken + mended` changes each goes either way with 1/2 (McNemar, 1947)."""
    n, least = broken + mended, min(broken, mended)
    if broken == mended:
        return 1.0
    # terms relative to the largest, from `least` down: no overflow at any n, and stops where they no longer count
    term, total = 1.0, 0.0
    for k in range(least, -1, -1):
        total += term
        term *= k / (n - k + 1)
        if term < total * 1e-17:
            break
    log = math.lgamma(n + 1) - math.lgamma(least + 1) - math.lgamma(n - least + 1) - n * math.log(2)
    return min(1.0, 2 * total * math.exp(log))


def bootstrap(broken: int, mended: int, n: int, *, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the difference from 10,000 resamples of the n pairs.

    A pair is worth -1, 0 or +1, so drawing n pairs is one draw from a multinomial: the same distribution, at no cost.
    """
    shares = np.array([broken, mended, n - broken - mended]) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, size=RESAMPLES)
    tail = (1 - confidence) / 2
    low, high = np.quantile((draws[:, 1] - draws[:, 0]) / n, [tail, 1 - tail])
    return float(low), float(high)


def lower_bound(broken: int, mended: int, n: int, *, confidence: float = 0.95) -> float:
    """One-sided lower bound of the difference: where Tango's score statistic reaches the normal quantile.

    Unlike the bootstrap it keeps its level with few or no changed images. Tango, Statistics in Medicine 17 (1998), 891-908.
    """
    z = NormalDist().inv_cdf(confidence)
    low, high = -1.0, (mended - broken) / n
    if tango(broken, mended, n, low + 1e-12) < z:
        return -1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if tango(broken, mended, n, middle) > z else (low, middle)
    return (low + high) / 2


def unchanged(margin: float, *, confidence: float = 0.95) -> float:
    """The fewest images without any change whose `lower_bound` lies above -margin (a share): there Tango's bound is
    -z^2 / (n + z^2). Infinite for a margin of 0."""
    square = NormalDist().inv_cdf(confidence) ** 2
    return math.floor(square / margin - square) + 1 if margin > 0 else math.inf


def upper_share(hits: int, n: int, *, confidence: float = 0.95) -> float:
    """One-sided upper bound of a share of which `hits` of n were seen (Clopper and Pearson, Biometrika 26 (1934), 404-413)."""
    return 1 - _crossing(n - hits - 1, n, confidence) if hits < n else 1.0


def share_interval(hits: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a share of which `hits` of n were seen (Clopper and Pearson, 1934)."""
    tail = (1 - confidence) / 2
    low = _crossing(hits - 1, n, 1 - tail) if hits else 0.0
    return low, _crossing(hits, n, tail) if hits < n else 1.0


def _crossing(most: int, n: int, chance: float) -> float:
    """The share at which `most` or fewer of n are seen with this chance; it falls with the share."""
    k = np.arange(most + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log((float(n) - k[:-1]) / (k[:-1] + 1)))])  # log of n choose k
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        seen, other = math.log(middle), math.log1p(-middle)
        fewer = float(np.exp(ways + k * seen + (float(n) - k) * other).sum())
        low, high = (middle, high) if fewer > chance else (low, middle)
    return (low + high) / 2


def tango(broken: int, mended: int, n: int, difference: float) -> float:
    """The score statistic, standard normal where the true difference is `difference`.

    (mended - broken - n*difference) over its standard deviation under the most likely shares that have that difference.
    """
    # share of `broken` under the constraint: the larger root of 2n q^2 + b q + c = 0
    b = -broken - mended + (2 * n - mended + broken) * difference
    c = -broken * difference * (1 - difference)
    q = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    gap = mended - broken - n * difference
    if variance <= 0:
        return math.copysign(math.inf, gap) if gap else 0.0
    return gap / math.sqrt(variance)


def needed(broken: int, mended: int, n: int, margin: float, *, confidence: float = 0.95, power: float = 0.9) -> int:
    """Images that would show what the point estimate says, were it true: a loss within `margin`, or else a real loss.

    n = ((z_confidence + z_power) * sd / effect)^2, with sd^2 = changed - difference^2 per image. With no change at all one
    changed image is assumed, since the true share is not zero for having been missed.
    """
    difference = (mended - broken) / n
    deviation = math.sqrt(max(broken + mended, 1) / n - difference**2)
    effect = margin + difference if difference > -margin else -difference
    if effect <= 0:
        raise MeasurementError("a margin of 0 can never be shown", remedy="Set `max_top1_drop` above 0")
    normal = NormalDist()
    within = difference > -margin
    z = normal.inv_cdf(confidence if within else 1 - (1 - confidence) / 2) + normal.inv_cdf(power)
    return max(n + 1, math.ceil((z * deviation / effect) ** 2))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected so that the chance of any false alarm stays what each alone had (Holm, 1979)."""
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
