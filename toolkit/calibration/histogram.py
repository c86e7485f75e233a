"""Histogram: one tensor's magnitudes, counted in one pass, in memory that does not grow, the same for any order of the values.

Bins. An octave [2^e, 2^(e+1)) is cut into 2,048 bins of equal width, which is to say that a bin holds the floats that share
their sign-less top 19 bits (8 of exponent, 11 of mantissa). So the bin of a value never depends on the other values. The 20
octaves below the largest magnitude are kept apart; what is smaller (under a millionth of the maximum, finer than any 8-bit step)
shares one bin. When a larger octave turns up, the window moves up and the octaves that drop out join that bin, where the same
values would have gone had the larger one come first. Only integers are summed. So it is order-independent and bit-reproducible.

The top octave's width is at most 1/2048 of the maximum, and each bin of a lower octave lies inside one such width, so an exact
histogram of equal bins, 2,048 to 4,096 of them up to the maximum, comes from it at any scale (`uniform`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.calibration.compiled import compiled
from toolkit.types import Array

Counts = NDArray[np.int64]
BITS = 11  # of the mantissa
PER_OCTAVE = 1 << BITS
OCTAVES = 20
SIZE = OCTAVES * PER_OCTAVE
_SHIFT = 23 - BITS
_LANES = 32  # the lowest bins, which all hold 'smaller': equal values in a row then wait less for each other's count
_CHUNK = 4096  # values that stay in the first-level cache between the two passes over them
_INFINITY = 0x7F800000
_MOST = 0xFFFFFFFF  # that 32 bits count
# Where the equal bins of `uniform` start, in bins back from their end: half of them are bins, a quarter two bins each, and so on.
_BACK = np.concatenate([[SIZE], *((o + 1) * PER_OCTAVE - np.arange(0, PER_OCTAVE, 1 << o) for o in range(BITS, -1, -1))])


@compiled
def _extremes(bits: Any) -> Any:
    """Of floats seen as uint32: largest unsigned, smallest unsigned, largest signed, how many are zero. Written to vectorize."""
    high, low, signed, zeros = np.uint32(0), np.uint32(0xFFFFFFFF), np.int32(-0x80000000), np.uint32(0)
    for i in range(bits.size):
        b = bits[i]
        s = np.int32(b)
        high = b if b > high else high
        low = b if b < low else low
        signed = s if s > signed else signed
        zeros += np.uint32(1) if (b & np.uint32(0x7FFFFFFF)) == np.uint32(0) else np.uint32(0)
    return high, low, signed, zeros


@compiled
def _count(bits: Any, bins: Any, counts: Any, base: int) -> None:
    """counts[bin] += 1 for each float; `base` is the number of the window's lowest bin, `bins` [_CHUNK] uint16 is scratch.

    The first loop is written to vectorize; the second takes four bins with one load.
    """
    mask, shift, offset = np.uint32(0x7FFFFFFF), np.uint32(_SHIFT), np.int32(base)
    for i in range(bits.size):
        bins[i] = np.uint16(max(np.int32((bits[i] & mask) >> shift) - offset, np.int32(i % _LANES)))
    fours, low, even = bins.view(np.uint64), np.uint64(0xFFFF), bits.size // 4
    for i in range(even):
        four = fours[i]
        counts[four & low] += np.uint32(1)
        counts[(four >> np.uint64(16)) & low] += np.uint32(1)
        counts[(four >> np.uint64(32)) & low] += np.uint32(1)
        counts[four >> np.uint64(48)] += np.uint32(1)
    for i in range(4 * even, bits.size):
        counts[bins[i]] += np.uint32(1)


@compiled
def _add(bits: Any, recent: Any, state: Any) -> bool:
    """Count `bits`. False: not all are finite.

    `state` is [base, largest unsigned, smallest unsigned, largest signed, zeros, values in `recent`]. `recent` is uint32, since
    a network's histograms do not fit the cache together and half the size is half the wait. Counts lie scattered: reading them
    in order first, which memory does fast, spares a wait at each.
    """
    if _read(recent) < 0:  # never so; the compiler must not leave the reading out
        return False
    bins = np.empty(_CHUNK, np.uint16)
    for start in range(0, bits.size, _CHUNK):
        chunk = bits[start : start + _CHUNK]
        high, low, signed, zeros = _extremes(chunk)
        top = max(np.int64(signed), np.int64(high & np.uint32(0x7FFFFFFF)) if high >= np.uint32(0x80000000) else np.int64(0))
        if top >= _INFINITY:
            return False
        state[1], state[2] = max(state[1], np.int64(high)), min(state[2], np.int64(low))
        state[3], state[4] = max(state[3], np.int64(signed)), state[4] + np.int64(zeros)
        base = ((top >> 23) - OCTAVES + 1) * PER_OCTAVE
        if base > state[0]:
            _raise(recent, base - state[0])
            state[0] = base
        _count(chunk, bins, recent, state[0])
        state[5] += chunk.size
    return True


@compiled
def _read(counts: Any) -> Any:
    """The sum of one number of each cache line, so that all are in the cache."""
    total = np.int64(0)
    for i in range(0, counts.size, 16):
        total += np.int64(counts[i])
    return total


@compiled
def _raise(counts: Any, by: int) -> None:
    """Move the window up by `by` bins: what drops out below joins the lowest bin."""
    if by == 0:
        return
    by = min(by, SIZE)
    dropped = counts[: min(by + _LANES, SIZE)].sum()
    for i in range(SIZE - by):
        counts[i] = counts[i + by]
    counts[SIZE - by :] = 0
    counts[:_LANES] = 0
    counts[0] = dropped


class Histogram:
    """The magnitudes of one tensor's values, with the exact least and greatest value and the number of exact zeros."""

    def __init__(self) -> None:
        self._recent = np.zeros(SIZE, np.uint32)
        self._kept: Counts | None = None  # what `recent` had no room for any more, and at the end all
        self._base = -(1 << 30)  # the lowest bin of `kept`
        self._state: Counts = np.array([-(1 << 30), 0, 0xFFFFFFFF, -0x80000000, 0, 0], np.int64)

    def add(self, values: Array) -> bool:
        """Count float32 `values` of any shape. False (and no more use for the histogram) where one is NaN or infinite."""
        bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
        if self._state[5] + bits.size > _MOST:
            self._settle()
        return bool(_add(bits, self._recent, self._state))

    def _settle(self) -> Counts:
        """Add `recent` to `kept`, and empty it."""
        base = int(self._state[0])
        if self._kept is None:
            self._kept = self._recent.astype(np.int64)
        else:
            _raise(self._kept, base - self._base)
            self._kept += self._recent
        self._base, self._recent[:], self._state[5] = base, 0, 0
        return self._kept

    @property
    def _counts(self) -> Counts:
        """[SIZE]: all counts; the lowest _LANES bins belong together."""
        settled = self._state[5] == 0 and self._base == self._state[0]
        return self._kept if settled and self._kept is not None else self._settle()

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self._counts.sum())

    @property
    def zeros(self) -> int:
        return int(self._state[4])

    @property
    def min(self) -> float:
        """The least value, exact; 0.0 where there is none."""
        _, high, low, *_ = self._state.tolist()
        return _float(high if high >= 0x80000000 else low) if self._state[2] <= self._state[1] else 0.0

    @property
    def max(self) -> float:
        """The greatest value, exact; 0.0 where there is none."""
        _, _, low, signed, *_ = self._state.tolist()
        return _float(signed if signed >= 0 else low) if self._state[2] <= self._state[1] else 0.0

    @property
    def absmax(self) -> float:
        return max(-self.min, self.max)

    def counts(self) -> Counts:
        """[SIZE]: how many magnitudes lie in each bin; the first reaches from 0 and takes in the `smaller` ones and the zeros."""
        counts = self._counts.copy()
        counts[0] = counts[:_LANES].sum()
        counts[1:_LANES] = 0
        return counts

    def edges(self, start: int = 0, stop: int = SIZE + 1) -> NDArray[np.float64]:
        """Edges `start` to `stop` - 1 of [SIZE + 1]: bin i holds magnitudes in [edge i, edge i + 1)."""
        index = np.arange(start, stop)
        numbers = np.maximum(index, _LANES) + max(int(self._state[0]), -(1 << 20))
        edges = (numbers + (1023 - 127) * PER_OCTAVE << 52 - BITS).view(np.float64)  # a bin's number is the top of its floats
        return np.where(index == 0, 0.0, edges)

    def uniform(self, octave: int = 0) -> tuple[float, Counts]:
        """(width, counts [4096]): magnitudes without the exact zeros, in equal bins from 0 to the end of an octave.

        `octave` 0 is the one that holds the maximum, 1 the one below, and so on to 7; what lies beyond is left out.
        """
        stop = SIZE - octave * PER_OCTAVE
        counts = np.add.reduceat(self._counts[:stop], np.maximum(stop - _BACK, 0))
        counts[0] -= self.zeros
        return float(np.ldexp(1.0, self._top() - octave - BITS)), counts

    def beyond(self, octave: int) -> NDArray[np.float64]:
        """[n, sum x, sum x^2] of the magnitudes x past the end of that octave, each bin seen at its center."""
        start = SIZE - octave * PER_OCTAVE
        edges, n = self.edges(start), self._counts[start:]
        x = (edges[:-1] + edges[1:]) / 2
        return np.array([n.sum(), n @ x, n @ x**2], np.float64)

    def _top(self) -> int:
        """The exponent of the highest octave."""
        return int(self._state[0]) // PER_OCTAVE + OCTAVES - 1 - 127

    def state(self) -> tuple[Counts, Counts]:
        """All that there is to keep: (counts, six numbers); see `restore`."""
        return self._counts, self._state

    @classmethod
    def restore(cls, counts: Array, state: Array) -> Histogram:
        """The histogram whose `state` this was."""
        self = cls()
        self._kept = np.array(counts, np.int64)
        self._state[:] = state
        self._base = int(self._state[0])
        return self


def _float(bits: int) -> float:
    return float(np.uint32(bits).view(np.float32)) + 0.0  # + 0.0: no negative zero
