"""Paired tests against scipy and statsmodels' published forms, and the levels they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from toolkit.errors import MeasurementError
from toolkit.harness.paired import bootstrap, holm, lower_bound, mcnemar, needed, paired_test, tango, upper_share


@pytest.mark.parametrize(("broken", "mended"), [(0, 0), (1, 0), (5, 0), (7, 3), (40, 61), (30, 25), (4000, 4400), (9000, 3000)])
def test_mcnemar_is_the_exact_binomial_test(broken: int, mended: int) -> None:
    expected = stats.binomtest(broken, broken + mended).pvalue if broken + mended else 1.0
    assert mcnemar(broken, mended) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(
    ("broken", "mended", "n", "at"), [(12, 5, 200, -0.01), (12, 5, 200, 0.05), (3, 9, 50, -0.1), (0, 4, 80, -0.02)]
)
def test_tango_is_the_score_under_the_most_likely_shares(broken: int, mended: int, n: int, at: float) -> None:
    """The constrained maximum of the multinomial likelihood, found by scipy instead of the closed form."""

    def against(q: float) -> float:  # q: share broken; q + at: share mended
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = [(broken, q), (mended, q + at), (n - broken - mended, 1 - 2 * q - at)]
            return -sum(k * np.log(p) if k else 0.0 for k, p in terms)

    found = optimize.minimize_scalar(against, bounds=(max(0, -at), (1 - at) / 2), method="bounded", options={"xatol": 1e-12})
    q = found.x
    expected = (mended - broken - n * at) / np.sqrt(n * (2 * q + at - at * at))
    assert tango(broken, mended, n, at) == pytest.approx(expected, rel=1e-4)


def test_the_lower_bound_keeps_its_level() -> None:
    """With few changed images, where the bootstrap's interval shrinks to a point."""
    rng = np.random.default_rng(0)
    draws = rng.multinomial(200, [0.02, 0.01, 0.97], size=2000)
    bounds = {pair: lower_bound(*pair, 200) for pair in {(int(b), int(m)) for b, m, _ in draws}}
    missed = np.mean([bounds[int(b), int(m)] > -0.01 for b, m, _ in draws])
    assert missed < 0.065
    assert lower_bound(0, 0, 100) < -0.02
    assert bootstrap(0, 0, 100) == (0.0, 0.0)


def test_bootstrap_is_scipys() -> None:
    worth = np.repeat([-1.0, 1.0, 0.0], [30, 18, 952])
    expected = stats.bootstrap((worth,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1))
    assert bootstrap(30, 18, 1000) == pytest.approx(tuple(expected.confidence_interval), abs=1.1e-3)
    assert bootstrap(30, 18, 1000, seed=3) == bootstrap(30, 18, 1000, seed=3)


def test_so_many_images_would_do() -> None:
    """Ask how many are needed, then draw that many: nine times in ten the answer is there."""
    n = needed(6, 4, 500, margin=0.005)
    rng = np.random.default_rng(2)
    draws = rng.multinomial(n, [6 / 500, 4 / 500, 490 / 500], size=400)
    settled = np.mean([lower_bound(int(b), int(m), n) > -0.005 for b, m, _ in draws])
    assert settled == pytest.approx(0.9, abs=0.05)
    with pytest.raises(MeasurementError):
        needed(3, 3, 100, margin=0.0)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_paired_test_counts_what_changed() -> None:
    before, after = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 0], bool)
    found = paired_test(before, after, margin=0.1, seed=0)
    assert (found.broken, found.mended, found.difference) == (2, 1, pytest.approx(-0.2))
    with pytest.raises(MeasurementError, match="pair"):
        paired_test(before, after[:3], margin=0.1, seed=0)


def test_the_upper_bound_of_a_share_is_where_so_few_hits_are_seen_once_in_twenty() -> None:
    assert upper_share(10, 10) == 1.0
    assert upper_share(0, 1) == pytest.approx(0.95)  # of one image: 1 - p = 0.05
    p = upper_share(18, 20)
    chance = p**20 + 20 * p**19 * (1 - p)  # at most one miss
    assert chance == pytest.approx(0.95, abs=1e-9)
