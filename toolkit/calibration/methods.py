"""Methods: from a histogram of magnitudes to the threshold T that an 8-bit step is spread over; larger magnitudes are clipped.

Candidates are bin edges, 64 an octave, from the maximum down through eight octaves, or until two octaves in a row bring nothing
better. Each candidate is judged on the equal bins of
its own octave (`Histogram.uniform`), so that 2,048 to 4,096 bins lie below every one and no candidate is preferred because
it is binned more coarsely than another, as can happen where a single grid serves all. `levels` is how many steps fit between 0
and T: 127 where the step is signed, 255 where an unsigned step serves a tensor without negative values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.calibration.compiled import compiled
from toolkit.calibration.histogram import PER_OCTAVE, Counts, Histogram

_Real = NDArray[np.float64]
PERCENTILES = (99.9, 99.99, 99.999)
_OCTAVES = 8
_SPACING = PER_OCTAVE // 64  # bins between candidates, which are 0.8 to 1.6 % apart


class _Grid(NamedTuple):
    """Equal bins up to the end of one octave, and sums over them that start with 0: those of the first i bins are at i."""

    width: float
    counts: Counts  # without exact zeros
    stops: Counts  # the candidates, in bins
    beyond: _Real  # n, sum x, sum x^2 of what lies past the end, in units of the width
    sums: _Real  # [5, bins + 1], each bin seen at its center: n, sum x, sum x^2, bins that are not empty, sum n log n


def thresholds(histogram: Histogram) -> dict[str, float]:
    """Every method's threshold: keys minmax, percentile-99.9 and so on, entropy, mse; see `TensorRange.thresholds`."""
    grids = _Grids(histogram)
    found = {"minmax": histogram.absmax}
    found |= {f"percentile-{percent}": limit for percent, limit in zip(PERCENTILES, percentiles(histogram), strict=True)}
    for levels in (127, 255) if histogram.min >= 0 else (127,):
        suffix = "" if levels == 127 else f"-{levels}"
        found |= {f"entropy{suffix}": _best(grids, levels, _divergences), f"mse{suffix}": _best(grids, levels, _errors)}
    return found


def percentiles(histogram: Histogram, percents: Sequence[float] = PERCENTILES) -> list[float]:
    """The least bin edges that at least so many percent of all magnitudes, zeros included, lie below; at most the maximum."""
    below = np.cumsum(histogram.counts())
    if not below[-1]:
        return [0.0] * len(percents)
    found = np.searchsorted(below, np.ceil(below[-1] * (np.asarray(percents) / 100)))
    return [min(float(histogram.edges(index + 1, index + 2)[0]), histogram.absmax) for index in found.tolist()]


def entropy(histogram: Histogram, levels: int = 127) -> float:
    """The T whose quantized distribution diverges least from the original (Kullback-Leibler), as in TensorRT's calibrator.

    S. Migacz, "8-bit inference with TensorRT", GTC 2017: P is the histogram up to T with all that is clipped added to its last
    bin; Q spreads each level's share evenly over those of its bins that P fills. Exact zeros are left out of both: every
    T represents them exactly, and after a ReLU they would be half of the mass.
    """
    return _best(_Grids(histogram), levels, _divergences)


def mse(histogram: Histogram, levels: int = 127) -> float:
    """The T with the least mean squared error of rounding to T / `levels` and clipping at T, each bin seen at its center."""
    return _best(_Grids(histogram), levels, _errors)


class _Grids:
    """The grids of a histogram, made when first asked for."""

    def __init__(self, histogram: Histogram) -> None:
        self.absmax = histogram.absmax
        self._histogram = histogram
        self._made: dict[int, _Grid] = {}

    def __getitem__(self, octave: int) -> _Grid:
        if octave not in self._made:
            self._made[octave] = self._make(octave)
        return self._made[octave]

    def _make(self, octave: int) -> _Grid:
        width, counts = self._histogram.uniform(octave)
        stops = np.arange(2 * PER_OCTAVE, PER_OCTAVE, -_SPACING)
        if octave == 0:
            top = min(int(self.absmax / width) + 1, 2 * PER_OCTAVE)
            stops = np.concatenate([[top], stops[stops < top]])
        beyond = self._histogram.beyond(octave) / np.array([1, width, width * width])
        return _Grid(width, counts, stops, beyond, _sums(counts))


def _best(grids: _Grids, levels: int, judge: _Judge) -> float:
    """The candidate with the least score; of equals the larger, which clips less."""
    if grids.absmax == 0:
        return 0.0
    least, best, found = np.inf, grids.absmax, 0
    for octave in range(_OCTAVES):
        grid = grids[octave]
        scores = judge(grid, levels)
        index = int(np.argmin(scores))
        if scores[index] < least:
            least, best, found = scores[index], min(float(grid.stops[index] * grid.width), grids.absmax), octave
        elif octave - found >= 2:
            break
    return best


@compiled
def _divergences(grid: Any, levels: int) -> Any:
    """Kullback-Leibler divergence of each candidate, times the total, up to a constant.

    Sum of p log(p / q) with p a bin's count (the last bin's: with all that is clipped) and q its level's share / filled bins,
    both as parts of their own total. A last level that is empty counts half a value, lest the divergence be infinite. What
    chance alone adds is taken off, half a count for each degree of freedom (Miller, 1955): finer bins hold fewer values, and
    with few images the noise would else drive T to where bins are wide.
    """
    n, _, _, filled, nlogn = grid.sums
    scores = np.empty(grid.stops.size)
    for i, stop in enumerate(grid.stops):
        last, clipped = float(grid.counts[stop - 1]), n[-1] + grid.beyond[0] - n[stop]
        half = 0.5 if clipped > 0 and n[stop] == n[stop * levels // (levels + 1)] else 0.0
        cross, chance, end = 0.0, 0.0, 0
        for level in range(1, levels + 2):
            start, end = end, stop * level // (levels + 1)
            share, bins = n[end] - n[start], filled[end] - filled[start]
            weight = share
            if level == levels + 1 and clipped > 0:
                weight, share, bins = weight + clipped, share + half, bins + (last == 0)
            if weight > 0:
                cross += weight * np.log(share / (bins * (n[stop] + half)))
            chance += max(bins - 1, 0) / 2
        scores[i] = nlogn[stop] + _nlogn(last + clipped) - _nlogn(last) - cross - chance
    return scores


@compiled
def _errors(grid: Any, levels: int) -> Any:
    """Summed squared error of each candidate.

    For a level at y: sum of (x - y)^2 = sum x^2 - 2 y sum x + y^2 n, over the bins that round to it; beyond T, y is T.
    """
    n, x, xx, _, _ = grid.sums
    scores = np.empty(grid.stops.size)
    for i, stop in enumerate(grid.stops):
        step, error, end = stop / levels, 0.0, 0
        for level in range(levels):
            y, start, end = level * step, end, int(np.rint((level + 0.5) * step))
            error += xx[end] - xx[start] - 2 * y * (x[end] - x[start]) + y * y * (n[end] - n[start])
        past_n, past_x, past_xx = n[-1] - n[end], x[-1] - x[end], xx[-1] - xx[end]
        past_n, past_x, past_xx = past_n + grid.beyond[0], past_x + grid.beyond[1], past_xx + grid.beyond[2]
        scores[i] = (error + past_xx - 2 * stop * past_x + stop * stop * past_n) * grid.width**2
    return scores


@compiled
def _sums(counts: Any) -> Any:
    """`_Grid.sums`; exact for counts below 2^53."""
    sums = np.zeros((5, counts.size + 1))
    for i in range(counts.size):
        n, x = float(counts[i]), i + 0.5
        for k, more in enumerate((n, n * x, n * x * x, min(n, 1.0), _nlogn(n))):
            sums[k, i + 1] = sums[k, i] + more
    return sums


@compiled
def _nlogn(n: float) -> float:
    return n * np.log(n) if n > 0 else 0.0


_Judge = Callable[[_Grid, int], _Real]
