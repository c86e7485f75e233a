"""Intervals hold the true value as often as they say, and what hits both engines cancels out of their ratio."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toolkit.harness import intervals
from toolkit.harness.latency import Launches, Sampling
from toolkit.harness.measurement import Block, Measurement
from toolkit.harness.run import plan_of

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
    known = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 8: 2.306, 11: 2.201, 30: 2.042}
    assert {n: intervals.student(n) for n in known} == {n: pytest.approx(value, rel=4e-3) for n, value in known.items()}


@pytest.mark.parametrize("plan", [plan_of(), plan_of(quick=True)], ids=["whole", "quick"])
def test_an_engine_that_settles_early_was_opened_often_enough_for_a_ratio(plan: Sampling) -> None:
    """Else a quiet machine, where a few rounds are enough for the median, would decide less than a busy one."""
    assert plan.least_blocks // Launches.ROUNDS >= intervals.LEAST
