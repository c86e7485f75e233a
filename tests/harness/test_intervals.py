"""Intervals hold the true value as often as they say, and what hits both engines cancels out of their ratio."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from toolkit.harness import intervals
from toolkit.harness.latency import Launches, Sampling
from toolkit.harness.measurement import Block, Measurement
from toolkit.harness.run import plan_of
from toolkit.harness.statistics import quantile

Floats = np.ndarray


def made(times: list[Floats], *, launches: int = 1, batch: int = 1, name: str = "a", **more: object) -> Measurement:
    """A closed-loop measurement of blocks of seconds, `launches` of them in turn."""
    each = math.ceil(len(times) / launches)
    blocks = tuple(
        Block(at_ns=i * 10**9, samples_ns=tuple((1e9 * t).astype(int).tolist()), launch=i // each) for i, t in enumerate(times)
    )
    total = sum(sum(block.samples_ns) for block in blocks)
    count = sum(len(block.samples_ns) for block in blocks)
    given = {"interleaved_with": ("a", "b"), **more}
    return Measurement(
        engine=name, precision="fp32", target="cpu", batch=batch, clock="with-transfers", started="2026-01-01T00:00:00+00:00",
        blocks=blocks, images=batch * count, duration_ns=total, **given,
    )  # fmt: skip


def rounds(random: np.random.Generator, count: int, samples: int = 12) -> list[tuple[Floats, Floats]]:
    """Two engines, the second twice as fast, in rounds that differ by a third: what the machine does hits both."""
    found = []
    for _ in range(count):
        speed = random.lognormal(0, 0.3)
        found.append(tuple(1e-3 * speed * part * random.gamma(400, 1 / 400, samples) for part in (1.0, 0.5)))
    return found


def test_a_ratio_is_sharper_than_its_parts_and_holds_the_truth() -> None:
    random = np.random.default_rng(1)
    held, widths = 0, []
    for _ in range(100):
        slow, fast = zip(*rounds(random, 12), strict=True)
        found = intervals.ratio(made(list(slow)), made(list(fast), name="b"))
        assert found is not None
        held += found.low <= 2.0 <= found.high
        widths.append(found.width)
    assert held >= 90, f"{held} of 100 intervals hold the true ratio"
    assert np.median(widths) < 0.35, "unpaired, rounds that scatter by 30 % would give 0.5 and more"


def test_engines_of_two_runs_do_not_share_their_rounds() -> None:
    slow, fast = zip(*rounds(np.random.default_rng(2), 12), strict=True)
    together = intervals.ratio(made(list(slow)), made(list(fast), name="b"))
    apart = intervals.ratio(made(list(slow)), made(list(fast), name="b", seed=9))
    assert together is not None
    assert apart is not None
    assert apart.width > 1.5 * together.width


@pytest.mark.parametrize("clusters", [6, 12])
def test_throughput_holds_the_truth_with_few_launches_too(clusters: int) -> None:
    random, held = np.random.default_rng(clusters), 0
    for _ in range(100):
        launches = [1e-3 * random.lognormal(0, 0.1) for _ in range(clusters)]
        times = [where * random.gamma(100, 0.01, 8) for where in launches for _ in range(2)]
        measured = made(times, launches=clusters, batch=4)
        found = intervals.throughput(measured)
        assert found is not None
        assert found.value == pytest.approx(measured.throughput)
        held += found.low <= 4 / (1e-3 * math.exp(0.1**2 / 2)) <= found.high
    assert held >= 90, f"{held} of 100 intervals hold the true throughput"


def test_what_cannot_be_told_is_open_and_what_does_not_compare_is_none() -> None:
    two = made([np.full(5, 1e-3), np.full(5, 1.1e-3)])
    assert intervals.throughput(two)[1:] == (0.0, math.inf)  # type: ignore[index]
    assert intervals.ratio(two, two)[1:] == (0.0, math.inf)  # type: ignore[index]
    assert intervals.ratio(two, made([np.full(5, 1e-3)], batch=8)) is None
    assert intervals.ratio(two, made([np.empty(0)])) is None
    assert intervals.percentile(two, 0.99) is None
    under_load = made([np.full(5, 1e-3)] * 9, scenario="server")
    assert intervals.throughput(under_load)[1:] == (0.0, math.inf)  # type: ignore[index]


def test_an_offline_trial_is_cut_into_stretches_of_time() -> None:
    random = np.random.default_rng(5)
    streams = [1e-3 * random.gamma(100, 0.01, 200) for _ in range(2)]
    trial = made(streams, scenario="offline", streams=2)
    halved = made(streams, scenario="offline", streams=2)
    wall = int(max(1e9 * s.sum() for s in streams))  # both ran at once
    import msgspec

    trial = msgspec.structs.replace(halved, duration_ns=wall)
    found = intervals.throughput(trial)
    assert found is not None
    assert found.value == pytest.approx(trial.throughput)
    assert found.low < found.value < found.high
    assert found.width < 0.05


def test_student_is_students() -> None:
    for freedom, error in ((30, 5e-6), (1000, 2.5e-12)):
        assert intervals.student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=error)
    known = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 8: 2.306, 11: 2.201, 30: 2.042}
    assert {n: intervals.student(n) for n in known} == {n: pytest.approx(value, rel=4e-3) for n, value in known.items()}


@pytest.mark.parametrize("plan", [plan_of(), plan_of(quick=True)], ids=["whole", "quick"])
def test_an_engine_that_settles_early_was_opened_often_enough_for_a_ratio(plan: Sampling) -> None:
    """Else a quiet machine, where a few rounds are enough for the median, would decide less than a busy one."""
    assert plan.least_blocks // Launches.ROUNDS >= intervals.LEAST


UNEVEN = [np.array(times) * 1e-3 for times in ([1.0], [1.3, 0.9], [2.0], [1.1, 1.2, 0.7], [1.5], [0.8], [1.7, 1.4])]


def weights_of(kind: str, clusters: int, stream: int = 0) -> Floats:
    return np.asarray(intervals._weights(kind, clusters, stream))


def resampled(measurement: Measurement, q: float, stream: int = 0) -> Floats:
    """By the definition: each sample as often as its cluster's weight says, in order; the first that q of them reach."""
    kind, own = intervals.clusters_of(measurement) or ("", np.empty(0, int))
    found = []
    for row in weights_of(kind, int(own.max()) + 1, stream):
        drawn = np.sort(np.repeat(measurement.seconds, row[own]))
        found.append(drawn[max(1, math.ceil(q * len(drawn))) - 1] if len(drawn) else math.nan)
    return np.array(found)


@pytest.mark.parametrize("q", [0.5, 0.9])
def test_a_ratios_interval_is_that_of_its_definition(q: float) -> None:
    """Seven clusters of one to three samples."""
    slow, fast = made(UNEVEN), made([part[:1] / 2 for part in UNEVEN], name="b")
    above, below = resampled(slow, q), resampled(fast, q)
    np.testing.assert_array_equal(intervals._quantiles(slow, intervals.clusters_of(slow), q, 0), above)  # type: ignore[arg-type]
    found = intervals.ratio(slow, fast, q)
    value = np.quantile(slow.seconds, q) / np.quantile(fast.seconds, q)
    assert found == intervals._between(value, above / below, 7)
    assert intervals.ratio(slow, fast, q) == found  # what was resampled is kept
    other = made([part[:1] / 2 for part in UNEVEN], name="b", seed=9)
    assert intervals.ratio(slow, other, q) == intervals._between(value, above / resampled(other, q, 1), 7)


def test_a_throughputs_interval_is_that_of_its_definition() -> None:
    measured = made(UNEVEN, batch=4)
    counts, times = np.array([len(part) for part in UNEVEN]), np.array([sum(b.samples_ns) / 1e9 for b in measured.blocks])
    weights = weights_of("block", 7)
    rates = 4 * (weights @ counts) / (weights @ times)
    found = intervals._rates(measured, intervals.clusters_of(measured))  # type: ignore[arg-type]
    np.testing.assert_allclose(found, rates, rtol=1e-12)
    assert intervals.throughput(measured)[1:] == pytest.approx(intervals._between(measured.throughput or 0, rates, 7)[1:])  # type: ignore[index]


def test_resamples_that_draw_nothing_tell_nothing() -> None:
    """Of three clusters, one resample in twenty."""
    few = made(UNEVEN[:1] + UNEVEN[2:3] + UNEVEN[4:5])
    clusters = intervals.clusters_of(few)
    assert clusters is not None
    drawn = weights_of("block", 3).sum(axis=1)
    assert {0, 1} < set(drawn.tolist())
    found = intervals._quantiles(few, clusters, 0.5, 0)
    np.testing.assert_array_equal(found, resampled(few, 0.5))
    np.testing.assert_array_equal(np.isnan(found), drawn == 0)
    np.testing.assert_array_equal(np.isnan(intervals._rates(few, clusters)), drawn == 0)


@pytest.mark.parametrize("clusters", [6, 12])
def test_the_ends_are_moved_out_as_students_t_asks_for(clusters: int) -> None:
    tail = stats.norm.cdf(-math.sqrt(clusters / (clusters - 1)) * stats.t.ppf(0.975, clusters - 1))
    spread = np.append(np.linspace(0.5, 1.5, 1001), [math.nan, math.inf])
    found = intervals._between(1.0, spread, clusters)
    assert found == (1.0, pytest.approx(0.5 + tail, abs=2e-4), pytest.approx(1.5 - tail, abs=2e-4))
    assert intervals._between(0.1, spread, clusters).low == 0.1  # the value is always inside
    assert intervals._between(2.0, spread, clusters).high == 2.0
    assert intervals._between(3.0, np.full(9, math.nan), clusters) == (3.0, 0.0, math.inf)


def test_six_clusters_tell_an_interval_and_five_do_not() -> None:
    few, enough = made([np.full(3, 1e-3 * k) for k in range(1, 6)]), made([np.full(3, 1e-3 * k) for k in range(1, 7)])
    assert intervals.throughput(few) == (pytest.approx(few.throughput), 0.0, math.inf)
    assert intervals.ratio(few, few) == intervals.ratio(few, enough)._replace(value=1.0) == (1.0, 0.0, math.inf)  # type: ignore[union-attr]
    assert intervals.throughput(enough).high < math.inf  # type: ignore[union-attr]
    assert intervals.ratio(enough, enough).high < math.inf  # type: ignore[union-attr]


def test_times_from_an_arrival_tell_no_interval_on_either_side() -> None:
    own, loaded = made(UNEVEN), made(UNEVEN, settings={"loadgen": "6.0"})
    assert intervals.clusters_of(loaded) is None
    assert intervals.throughput(loaded)[1:] == (0.0, math.inf)  # type: ignore[index]
    for sides in ((own, loaded), (loaded, own), (loaded, loaded)):
        assert intervals.ratio(*sides) == (1.0, 0.0, math.inf)


def test_clusters_are_launches_blocks_or_stretches_of_time() -> None:
    kinds = {}
    for name, more in {"one": {}, "two": {"launches": 2}, "three": {"launches": 3}, "offline": {"scenario": "offline"}}.items():
        kind, own = intervals.clusters_of(made([np.full(20, 1e-3)] * 6, **more)) or ("", np.empty(0))  # type: ignore[arg-type]
        kinds[name] = kind, len(np.unique(own)), len(own)
    assert kinds == {
        "one": ("block", 6, 120),
        "two": ("launch", 2, 120),
        "three": ("launch", 3, 120),
        "offline": ("stretch", 10, 120),
    }


def test_a_percentile_has_the_interval_of_its_clusters_and_needs_one_sample_beyond_it() -> None:
    measured = made([np.array([1.0, 1.1]) * 1e-3 * k for k in (1, 2, 3, 4, 5)])
    assert intervals.percentile(measured, 0.5) == quantile(measured.seconds, 0.5, measured.clusters)
    assert intervals.percentile(measured, 0.5) != quantile(measured.seconds, 0.5)
    assert intervals.percentile(measured, 0.9) is not None  # the tenth of ten
    assert intervals.percentile(measured, 0.91) is None
