"""Methods: from a histogram of magnitudes to the threshold T that an 8-bit step is spread over; larger magnitudes are clipped.

Candidates are bin edges from the maximum down through six octaves, 64 an octave. Each candidate is judged on the equal bins of
its own octave (`Histogram.uniform`), so that 2,048 to 4,096 bins lie below every one and no candidate wins by being seen more
coarsely than another, as it can where a single grid serves all. `levels` is how many steps fit between 0 and T: 127 where the
step is signed, 255 where an unsigned step serves a tensor without negative values.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from toolkit.calibration.histogram import PER_OCTAVE, Counts, Histogram
from toolkit.types import Array

_OCTAVES = 6
_PER_OCTAVE = 64  # candidates, 0.8 to 1.6 % apart
_Real = NDArray[np.float64]
_Judge = Callable[[Counts, Counts, NDArray[np.float64], int], NDArray[np.float64]]


def minmax(histogram: Histogram) -> float:
    """The largest magnitude: nothing is clipped."""
    return histogram.absmax


def percentile(histogram: Histogram, percent: float) -> float:
    """The least bin edge that at least `percent` of all magnitudes, zeros included, lie below; at most the maximum."""
    edges, counts = histogram.bins()
    below = np.cumsum(counts)
    if not below[-1]:
        return 0.0
    index = int(np.searchsorted(below, np.ceil(below[-1] * (percent / 100))))
    return min(float(edges[index + 1]), histogram.absmax)


def entropy(histogram: Histogram, levels: int = 127) -> float:
    """The T whose quantised distribution diverges least from the original (Kullback-Leibler), as in TensorRT's calibrator.

    S. Migacz, "8-bit inference with TensorRT", GTC 2017: P is the histogram up to T with all that is clipped added to its last
    bin; Q spreads each level's share evenly over those of its bins that P fills. Exact zeros are left out of both: every
    T represents them exactly, and after a ReLU they would be half of the mass.
    """
    return _best(histogram, levels, _divergences)


def mse(histogram: Histogram, levels: int = 127) -> float:
    """The T with the least mean squared error of rounding to T / `levels` and clipping at T, each bin seen at its centre."""
    return _best(histogram, levels, _errors)


def _best(histogram: Histogram, levels: int, judge: _Judge) -> float:
    """The candidate with the least score; of equals the larger, which clips less."""
    absmax = histogram.absmax
    if absmax == 0:
        return 0.0
    least, best = np.inf, absmax
    for octave in range(_OCTAVES):
        width, counts = histogram.uniform(octave)
        stops = np.arange(2 * PER_OCTAVE, PER_OCTAVE, -(PER_OCTAVE // _PER_OCTAVE))
        if octave == 0:
            top = min(int(absmax / width) + 1, 2 * PER_OCTAVE)
            stops = np.concatenate([[top], stops[stops < top]])
        scores = judge(counts, stops, histogram.beyond(octave) / np.array([1, width, width * width]), levels)
        scores = scores * (width * width if judge is _errors else 1)
        index = int(np.argmin(scores))
        if scores[index] < least:
            least, best = scores[index], min(float(stops[index] * width), absmax)
    return best


def _divergences(counts: Counts, stops: Counts, beyond: _Real, levels: int) -> _Real:
    """Kullback-Leibler divergence of each candidate, up to a constant; infinite where Q is empty and P is not.

    Sum of p log(p / q) with p a bin's count (the last bin's: with all that is clipped) and q its level's share / filled bins.
    """
    own = _sums(counts * np.log(np.maximum(counts, 1)))[stops]
    below, filled = _sums(counts), _sums(counts > 0)
    kept, clipped, last = below[stops], below[-1] + beyond[0] - below[stops], counts[stops - 1]
    edges = stops[:, None] * np.arange(levels + 2) // (levels + 1)
    share = np.diff(below[edges], axis=1).astype(np.float64)
    bins = np.diff(filled[edges], axis=1).astype(np.float64)
    bins[:, -1] += (last == 0) & (clipped > 0)
    weight = share.copy()
    weight[:, -1] += clipped
    own += _xlogx(last + clipped) - _xlogx(last)
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = np.where(weight > 0, weight * np.log(share / (bins * kept[:, None])), 0.0).sum(1)
    return own - cross


def _errors(counts: Counts, stops: Counts, beyond: _Real, levels: int) -> _Real:
    """Summed squared error of each candidate, in units of a bin's width squared.

    For a level at y: sum of (x - y)^2 = sum x^2 - 2 y sum x + y^2 n, over the bins that round to it; beyond T, y is T.
    """
    centre = np.arange(len(counts)) + 0.5
    sums = [_sums(counts), _sums(counts * centre), _sums(counts * centre**2)]
    step = stops[:, None] / levels
    middles = np.rint(step * (np.arange(levels) + 0.5)).astype(np.int64)
    edges = np.concatenate([np.zeros_like(middles[:, :1]), middles, np.full_like(middles[:, :1], len(counts))], axis=1)
    n, x, xx = (np.diff(total[edges], axis=1) for total in sums)
    for moment, extra in zip((n, x, xx), beyond, strict=True):
        moment[:, -1] += extra
    y = step * np.arange(levels + 1)
    return (xx - 2 * y * x + y * y * n).sum(1)


def _sums(values: Array) -> _Real:
    """[0, values[0], values[0] + values[1], ...] in float64; exact for counts below 2^53."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _xlogx(values: Array) -> _Real:
    return np.asarray(values * np.log(np.maximum(values, 1)), np.float64)
