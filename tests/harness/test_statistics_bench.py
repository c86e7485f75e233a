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
