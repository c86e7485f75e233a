"""Paired tests against scipy and statsmodels' published forms, and the levels they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from toolkit.errors import MeasurementError
from toolkit.harness.paired import (
    bootstrap,
    holm,
    lower_bound,
    mcnemar,
    needed,
    paired_test,
    share_interval,
    tango,
    upper_share,
)


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


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (20, 20), (3, 20), (18, 20), (1, 1), (500, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_of_a_share_is_scipys_exact_one(hits: int, n: int, confidence: float) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(confidence, "exact")
    assert share_interval(hits, n, confidence=confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert share_interval(hits, n) == share_interval(hits, n, confidence=0.95)


@pytest.mark.parametrize("hits", [0, 3, 15, 19])
def test_the_upper_bound_of_a_share_is_scipys(hits: int) -> None:
    expected = stats.binomtest(hits, 20, alternative="less").proportion_ci(0.95, "exact").high
    assert upper_share(hits, 20) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("broken", "mended", "n"), [(12, 5, 200), (3, 9, 50), (0, 4, 80), (7, 0, 30)])
def test_the_score_at_the_lower_bound_is_the_normal_quantile(broken: int, mended: int, n: int) -> None:
    assert tango(broken, mended, n, lower_bound(broken, mended, n)) == pytest.approx(stats.norm.ppf(0.95))


def test_what_loses_every_image_may_lose_every_image() -> None:
    assert lower_bound(5, 0, 5) == -1.0


def test_tango_at_the_ends_of_what_shares_can_be() -> None:
    """Where the most likely shares leave no variance, a difference is impossible, or certain."""
    assert tango(0, 0, 10, 0.0) == 0.0
    assert tango(0, 4, 10, 1.0) == -np.inf
    assert tango(0, 4, 10, -1.0) == np.inf
    # b = -1 + 39 * 0.02 = -0.22, c = 0, q = 0.44 / 80; variance 20 (2q + 0.02 * 0.98) = 0.612, gap 1 - 0.4
    assert tango(0, 1, 20, 0.02) == pytest.approx(0.6 / np.sqrt(0.612))


Z = {p: stats.norm.ppf(p) for p in (0.9, 0.95, 0.975)}


@pytest.mark.parametrize(
    ("broken", "mended", "n", "margin", "expected"),
    [
        (6, 4, 500, 0.005, (Z[0.95] + Z[0.9]) ** 2 * (10 / 500 - 0.004**2) / 0.001**2),  # a loss of 0.4 points, within 0.5
        (10, 2, 100, 0.02, (Z[0.975] + Z[0.9]) ** 2 * (12 / 100 - 0.08**2) / 0.08**2),  # one of 8, which is real
        (2, 1, 100, 0.01, (Z[0.975] + Z[0.9]) ** 2 * (3 / 100 - 0.01**2) / 0.01**2),  # one of just the margin is none within it
        (0, 0, 100, 0.01, (Z[0.95] + Z[0.9]) ** 2 * (1 / 100) / 0.01**2),  # no change was seen: one is assumed
        (0, 0, 5000, 0.1, 5001),  # more than there were, or they would have told
        (1, 3, 100, 0.02, (Z[0.95] + Z[0.9]) ** 2 * (4 / 100 - 0.02**2) / 0.04**2),
    ],
)
def test_the_images_needed_are_those_of_the_formula(broken: int, mended: int, n: int, margin: float, expected: float) -> None:
    assert needed(broken, mended, n, margin) == np.ceil(expected)


def test_a_margin_that_cannot_be_shown_names_its_key() -> None:
    with pytest.raises(MeasurementError, match="max_top1_drop"):
        needed(3, 3, 100, margin=0.0)
    with pytest.raises(MeasurementError, match="Give both engines the same images"):
        paired_test(np.ones(2, bool), np.ones(3, bool), margin=0.1)


def test_a_corrected_p_is_a_probability() -> None:
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_the_bootstraps_ends_are_those_of_95_percent() -> None:
    """Of a million images the difference is normal; 0.1 of its deviation is four times what 10,000 resamples scatter."""
    deviation = np.sqrt((0.048 - 0.012**2) / 10**6)
    expected = -0.012 - Z[0.975] * deviation, -0.012 + Z[0.975] * deviation
    assert bootstrap(30_000, 18_000, 10**6) == pytest.approx(expected, abs=0.1 * deviation)


def test_a_paired_test_is_made_of_its_parts() -> None:
    before, after = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 0], bool)
    found = paired_test(before, after, margin=0.1, seed=7)
    assert found.interval == bootstrap(2, 1, 5, seed=7)
    assert (found.p, found.lower, found.needed) == (mcnemar(2, 1), lower_bound(2, 1, 5), needed(2, 1, 5, 0.1))
    rng = np.random.default_rng(0)
    before, after = rng.random(500) < 0.9, rng.random(500) < 0.8
    assert paired_test(before, after, margin=0.1) == paired_test(before, after, margin=0.1, seed=0)
    assert paired_test(before, after, margin=0.1).interval != paired_test(before, after, margin=0.1, seed=7).interval
    assert paired_test(np.ones(1, bool), np.ones(1, bool), margin=0.1).difference == 0
    with pytest.raises(MeasurementError, match="cannot pair 0 answers"):
        paired_test(np.ones(0, bool), np.ones(0, bool), margin=0.1)
