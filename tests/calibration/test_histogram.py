from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from toolkit.calibration.histogram import PER_OCTAVE, SIZE, Histogram
from toolkit.types import Array, Float

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
values = npst.arrays(np.float32, st.integers(1, 300), elements=finite)


def counted(*parts: Array) -> Histogram:
    histogram = Histogram()
    for part in parts:
        assert histogram.add(part)
    return histogram


def same(a: Histogram, b: Histogram) -> bool:
    return (
        np.array_equal(a.counts(), b.counts())
        and np.array_equal(a.edges(), b.edges())
        and (a.min, a.max, a.zeros) == (b.min, b.max, b.zeros)
    )


@given(values, st.randoms(use_true_random=False), st.lists(st.integers(0, 300), max_size=5))
@example(np.float32([1e-30, 1e30, 1e-30, -1e20, 0, 1]), Random(0), [1, 2, 3])
@settings(max_examples=200, deadline=None)
def test_neither_order_nor_division_shows(x: Float, random: Random, cuts: list[int]) -> None:
    order = np.arange(len(x))
    random.shuffle(order)
    parts = np.split(x[order], sorted(min(cut, len(x)) for cut in cuts))
    assert same(counted(x), counted(*parts))


@given(values)
@settings(max_examples=200, deadline=None)
def test_extremes_and_counts_are_exact(x: Float) -> None:
    histogram = counted(x)
    assert (histogram.min, histogram.max) == (x.min(), x.max())
    assert histogram.absmax == np.abs(x).max()
    assert histogram.zeros == np.count_nonzero(x == 0)
    assert histogram.total == x.size


def test_bins_agree_with_numpy() -> None:
    random = np.random.default_rng(0)
    x = (random.standard_normal(20_000) * 10 ** random.uniform(-6, 3, 20_000)).astype(np.float32)
    histogram = counted(x)
    edges, counts = histogram.edges(), histogram.counts()
    keep = np.append(np.diff(edges) > 0, True)  # the lowest bins share one
    expected, _ = np.histogram(np.abs(x), np.unique(edges))
    assert np.array_equal(counts[keep[:-1]], expected)
    top = edges[-1] / 2
    assert np.all(np.diff(edges[edges >= top]) == top / PER_OCTAVE)


@pytest.mark.parametrize("octave", [0, 1, 2, 3])
def test_equal_bins_agree_with_numpy(octave: int) -> None:
    random = np.random.default_rng(octave)
    x = np.maximum(random.standard_normal(30_000) ** 3, 0).astype(np.float32)
    histogram = counted(x)
    width, counts = histogram.uniform(octave)
    expected, _ = np.histogram(x[x > 0], np.arange(len(counts) + 1) * width)
    assert np.array_equal(counts, expected)
    past = x[x >= len(counts) * width].astype(np.float64)
    assert histogram.beyond(octave)[0] == len(past)
    if octave:
        assert histogram.beyond(octave)[1:] == pytest.approx([past.sum(), (past**2).sum()], rel=1e-3)
    else:
        assert x.max() / width >= PER_OCTAVE  # 2,048 bins or more below the maximum


def test_memory_does_not_grow() -> None:
    histogram = Histogram()
    before = [array.nbytes for array in histogram.state()]
    for scale in np.logspace(-20, 20, 9, dtype=np.float32):
        histogram.add(np.full(1000, scale, np.float32))
    assert [array.nbytes for array in histogram.state()] == before
    assert before[0] == 8 * SIZE


def test_counts_past_what_32_bits_hold() -> None:
    histogram = counted(np.ones(1, np.float32))
    histogram._recent[0], histogram._state[5] = 0xFFFFFFFF - 5, 0xFFFFFFFF - 4  # as if so many zeros had been counted
    assert histogram.add(np.zeros(100, np.float32))
    assert histogram.total == 1 + 0xFFFFFFFF - 5 + 100


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 5000, 9999])
def test_refuses_what_is_not_finite(bad: float, where: int) -> None:
    x = np.ones(10_000, np.float32)
    x[where] = bad
    assert not Histogram().add(x)


def test_restores_its_state() -> None:
    x = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    first = counted(x[:2000])
    second = Histogram.restore(*first.state())
    second.add(x[2000:])
    assert same(second, counted(x))
    assert not same(first, second)


def test_empty() -> None:
    assert (Histogram().min, Histogram().max, Histogram().absmax, Histogram().total) == (0, 0, 0, 0)
