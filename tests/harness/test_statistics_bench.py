"""Statistics against scipy, and intervals against the coverage they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from toolkit.errors import MeasurementError
from toolkit.harness.statistics import binomial, bracket, by_block, effective_share, quantile, shift, trend


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (30, 0.01), (500, 0.99), (5000, 0.999)])
def test_binomial_is_scipys(n: int, p: float) -> None:
    np.testing.assert_allclose(binomial(n, p), stats.binom.pmf(np.arange(n + 1), n, p), rtol=1e-8, atol=1e-15)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [10, 100, 1000])
def test_bracket_is_scipys_quantile_interval(n: int, q: float) -> None:
    low, high = bracket(n, q)
    found = stats.quantile_test(np.arange(1.0, n + 1), p=q).confidence_interval(0.95)
    assert low == (0 if np.isnan(found.low) else found.low)
    assert high == (0 if np.isnan(found.high) else found.high)


def test_too_few_samples_leave_the_tail_open() -> None:
    assert quantile(np.linspace(1, 2, 50), 0.999).high == np.inf
    with pytest.raises(MeasurementError):
        quantile(np.empty(0), 0.5)


def test_intervals_cover_the_median_of_samples_that_come_in_blocks() -> None:
    """A block shifts all its samples: intervals that took them as independent would miss far more than 5 % of the time."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(30), 20)
    aware = naive = 0
    for _ in range(300):
        samples = 10 + rng.normal(size=30).repeat(20) + 0.3 * rng.normal(size=600)
        blocked, plain = quantile(samples, 0.5, groups), quantile(samples, 0.5)
        aware += blocked.low <= 10 <= blocked.high
        naive += plain.low <= 10 <= plain.high
    assert aware >= 0.9 * 300
    assert naive < 0.6 * 300


def test_samples_without_blocks_of_their_own_keep_their_number() -> None:
    rng = np.random.default_rng(2)
    shares = [effective_share(rng.random(1000) < 0.5, np.repeat(np.arange(50), 20)) for _ in range(50)]
    assert np.mean(shares) > 0.8


@pytest.mark.parametrize("above", [0.0, 0.3])
def test_shift_is_mann_and_whitneys(above: float) -> None:
    rng = np.random.default_rng(3)
    old, new = rng.normal(size=25), rng.normal(0.5, 1, 31)
    found = shift(old, new, above=above)
    expected = stats.mannwhitneyu(new - above, old, alternative="greater", method="asymptotic")
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.value == pytest.approx(np.median(new[:, None] - old[None]))


def test_shift_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(400):
        found = shift(rng.exponential(size=12), 0.7 + rng.exponential(size=15))
        covered += found.low <= 0.7 <= found.high
    assert covered / 400 == pytest.approx(0.95, abs=0.03)


def test_shift_wants_six_blocks() -> None:
    with pytest.raises(MeasurementError, match="5 blocks"):
        shift(np.arange(5.0), np.arange(9.0))


def test_trend_is_kendalls_and_theil_sens() -> None:
    rng = np.random.default_rng(5)
    values = 5 + 0.01 * np.arange(60) + 0.1 * rng.normal(size=60)
    found = trend(values)
    slope = stats.theilslopes(values).slope
    assert found.change == pytest.approx(slope * 59 / np.median(values))
    assert found.p == pytest.approx(stats.kendalltau(np.arange(60), values, method="asymptotic").pvalue, rel=1e-6)
    assert trend(values[:5]).p == 1


def test_by_block() -> None:
    np.testing.assert_array_equal(by_block(np.array([1.0, 3, 2, 9]), np.array([0, 0, 0, 1])), [2, 9])


@pytest.mark.parametrize(
    ("hits", "share"),
    [
        ([[1, 1, 1, 1], [0, 0, 1, 0], [1, 0, 0, 0]], 1 / 3),  # excesses 2, -1, -1: 3/2 * 6 / 144 against 1/4 / 12
        ([[1, 1], [0, 0]], 1 / 2),  # blocks that are wholly alike inside count as one sample each
        ([[1, 0], [0, 1], [1, 0]], 1.0),  # blocks that are more alike than chance make it are no more than their samples
        ([[1, 1], [1, 1]], 1.0),
        ([[0, 1, 1, 0]], 1.0),
    ],
)
def test_the_share_of_samples_that_count_is_worked_out_by_hand(hits: list[list[int]], share: float) -> None:
    groups = np.repeat(np.arange(len(hits)), [len(block) for block in hits])
    assert effective_share(np.concatenate([np.array(block, bool) for block in hits]), groups) == pytest.approx(share)


def test_the_ends_of_a_quantile_are_samples_of_the_ranks_that_bracket_gives() -> None:
    samples = np.random.default_rng(0).permutation(np.arange(1.0, 121.0))
    low, high = bracket(120, 0.9)
    assert quantile(samples, 0.9) == (pytest.approx(np.quantile(samples, 0.9)), low, high)  # sample k has rank k
    assert quantile(samples[:4], 0.5)[1:] == (0.0, np.inf)
    assert quantile(np.array([5.0]), 0.5) == (5.0, 0.0, np.inf)
    with pytest.raises(MeasurementError, match="no samples"):
        quantile(np.empty(0), 0.5)


def test_ranks_of_fewer_effective_samples_are_carried_over_to_all() -> None:
    """12 blocks of 10 with 8 or 2 below the median: 55/216 of 120 samples count, which are 31."""
    low, high, below, above = *bracket(31, 0.5), iter(np.arange(1.0, 61.0)), iter(np.arange(61.0, 121.0))
    blocks = [[next(below) for _ in range(k)] + [next(above) for _ in range(10 - k)] for k in (8, 2) * 6]
    found = quantile(np.concatenate(blocks), 0.5, np.repeat(np.arange(12), 10))
    assert found == (60.5, np.floor(low * 216 / 55), np.ceil(high * 216 / 55))
    assert low < 15 < 16 < high


@pytest.mark.parametrize("seed", range(4))
def test_ties_count_half_and_narrow_the_deviation(seed: int) -> None:
    random = np.random.default_rng(seed)
    old, new = random.integers(0, 4, 9).astype(float), random.integers(1, 5, 7).astype(float)
    found = shift(old, new, above=1.0)
    theirs = stats.mannwhitneyu(new - 1.0, old, alternative="greater", method="asymptotic")
    assert found.p == pytest.approx(theirs.pvalue)
    pairs = np.sort(np.subtract.outer(new, old).ravel())
    rank = int(63 / 2 + stats.norm.ppf(0.025) * np.sqrt(63 * 17 / 12))
    assert found[:3] == (np.median(pairs), pairs[rank - 1], pairs[-rank])


def test_sets_without_any_difference_are_no_shift() -> None:
    assert shift(np.ones(6), np.ones(6)) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("seed", range(4))
def test_a_trend_through_ties_is_kendalls_too(seed: int) -> None:
    values = 10.0 - np.random.default_rng(seed).integers(0, 5, 8) - np.arange(8) // 3
    found = trend(values)
    theirs = stats.kendalltau(np.arange(8), values, method="asymptotic")
    slopes = [(values[j] - values[i]) / (j - i) for i in range(8) for j in range(i + 1, 8)]
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.change == pytest.approx(np.median(slopes) * 7 / np.median(values))


def test_a_trend_needs_eight_values_and_some_that_differ() -> None:
    assert trend(np.arange(7.0)) == (0.0, 1.0)
    assert trend(np.arange(1.0, 9.0)).p < 0.01
    assert trend(np.ones(9)) == (0.0, 1.0)
    assert trend(np.array([-4.0, -3, -2, -1, 1, 2, 3, 4])).change == 0.0  # a share of a median of 0 says nothing
