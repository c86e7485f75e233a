"""Methods: from a histogram of magnitudes to the threshold T that an 8-bit step is spread over; larger magnitudes are clipped.

Candidates are bin edges, 64 an octave, from the maximum down through eight octaves, or until two octaves in a row bring nothing
better. Each candidate is judged on the equal bins of
its own octave (`Histogram.uniform`), so that 2,048 to 4,096 bins lie below every one and no candidate wins by being seen more
coarsely than another, as it can where a single grid serves all. `levels` is how many steps fit between 0 and T: 127 where the
step is signed, 255 where an unsigned step serves a tensor without negative values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.calibration.histogram import PER_OCTAVE, Counts, Histogram
from toolkit.types import Array

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
    n: _Real
    x: _Real
    xx: _Real
    filled: _Real  # bins that are not empty
    xlogx: _Real


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
    """The T whose quantised distribution diverges least from the original (Kullback-Leibler), as in TensorRT's calibrator.

    S. Migacz, "8-bit inference with TensorRT", GTC 2017: P is the histogram up to T with all that is clipped added to its last
    bin; Q spreads each level's share evenly over those of its bins that P fills. Exact zeros are left out of both: every
    T represents them exactly, and after a ReLU they would be half of the mass.
    """
    return _best(_Grids(histogram), levels, _divergences)


def mse(histogram: Histogram, levels: int = 127) -> float:
    """The T with the least mean squared error of rounding to T / `levels` and clipping at T, each bin seen at its centre."""
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
        centre = np.arange(len(counts)) + 0.5
        return _Grid(
            width,
            counts,
            stops,
            self._histogram.beyond(octave) / np.array([1, width, width * width]),
            _sums(counts),
            _sums(counts * centre),
            _sums(counts * centre**2),
            _sums(counts > 0),
            _sums(_xlogx(counts)),
        )


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


def _divergences(grid: _Grid, levels: int) -> _Real:
    """Kullback-Leibler divergence of each candidate, times the total, up to a constant.

    Sum of p log(p / q) with p a bin's count (the last bin's: with all that is clipped) and q its level's share / filled bins,
    both as parts of their own total. A last level that is empty counts half a value, lest the divergence be infinite. What
    chance alone adds is taken off, half a count for each degree of freedom (Miller, 1955): finer bins hold fewer values, and
    with few images the noise would else drive T to where bins are wide.
    """
    last = grid.counts[grid.stops - 1]
    clipped = grid.n[-1] + grid.beyond[0] - grid.n[grid.stops]
    edges = grid.stops[:, None] * np.arange(levels + 2) // (levels + 1)
    share, bins = _between(grid.n, edges), _between(grid.filled, edges)
    bins[:, -1] += (last == 0) & (clipped > 0)
    weight = share.copy()
    share[:, -1] += 0.5 * ((share[:, -1] == 0) & (clipped > 0))
    weight[:, -1] += clipped
    own = grid.xlogx[grid.stops] + _xlogx(last + clipped) - _xlogx(last)
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = np.where(weight > 0, weight * np.log(share / (bins * share.sum(1, keepdims=True))), 0.0).sum(1)
    chance = np.maximum(bins - 1, 0).sum(1) / 2
    return np.asarray(own - cross - chance)


def _errors(grid: _Grid, levels: int) -> _Real:
    """Summed squared error of each candidate.

    For a level at y: sum of (x - y)^2 = sum x^2 - 2 y sum x + y^2 n, over the bins that round to it; beyond T, y is T.
    """
    step = grid.stops[:, None] / levels
    middles = np.rint(step * (np.arange(levels) + 0.5)).astype(np.int64)
    edges = np.concatenate([np.zeros_like(middles[:, :1]), middles, np.full_like(middles[:, :1], len(grid.counts))], axis=1)
    n, x, xx = (_between(sums, edges) for sums in (grid.n, grid.x, grid.xx))
    for moment, extra in zip((n, x, xx), grid.beyond, strict=True):
        moment[:, -1] += extra
    y = step * np.arange(levels + 1)
    return np.asarray((xx - 2 * y * x + y * y * n).sum(1) * grid.width**2)


def _sums(values: Array) -> _Real:
    """[0, values[0], values[0] + values[1], ...] in float64; exact for counts below 2^53."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _between(sums: _Real, edges: Counts) -> _Real:
    """What lies between each edge and the next; `edges` [candidates, m] -> [candidates, m - 1]."""
    found = sums[edges]
    return np.asarray(found[:, 1:] - found[:, :-1])


def _xlogx(values: Array) -> _Real:
    return np.asarray(values * np.log(np.maximum(values, 1)), np.float64)


_Judge = Callable[[_Grid, int], _Real]
