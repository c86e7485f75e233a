"""Side by side: what several subjects do in turn, in rounds whose order is drawn anew, so that the machine's moods hit all alike.

The samples of one round are neighbors in time: ratios are taken within a round, and their interval over rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter_ns
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Sample = TypeVar("Sample")
RESAMPLES = 2000


def shuffled(names: Sequence[str], rounds: int, seed: int = 0) -> Iterator[tuple[int, str]]:
    """(round, name): each name once a round, in an order drawn anew."""
    random = np.random.default_rng(seed)
    for turn in range(rounds):
        for index in random.permutation(len(names)):
            yield turn, names[index]


def side_by_side(
    subjects: Mapping[str, Callable[[], Sample]], rounds: int, *, warmup: int = 1, seed: int = 0
) -> dict[str, list[Sample]]:
    """What each subject's turn gave, a sample a round; the first `warmup` rounds are left out."""
    kept: dict[str, list[Sample]] = {name: [] for name in subjects}
    for turn, name in shuffled(list(subjects), rounds + warmup, seed):
        sample = subjects[name]()
        if turn >= warmup:
            kept[name].append(sample)
    return kept


def calls(call: Callable[[], object], count: int, *, lead: int = 0) -> list[int]:
    """Nanoseconds of each of `count` calls; `lead` calls before them are not counted."""
    found = []
    for number in range(lead + count):
        begin = perf_counter_ns()
        call()
        if number >= lead:
            found.append(perf_counter_ns() - begin)
    return found


def block(call: Callable[[], object], count: int) -> int:
    """Nanoseconds of `count` calls together, for calls that a clock's own cost would show in."""
    begin = perf_counter_ns()
    for _ in range(count):
        call()
    return perf_counter_ns() - begin


def ratio(base: Sequence[Sequence[float]], peer: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float, float]:
    """How many times as fast as `base`: the median over rounds of the ratio of medians, and its 95 % interval."""
    ratios = np.array([np.median(b) / np.median(p) for b, p in zip(base, peer, strict=True)])
    return (float(np.median(ratios)), *median_interval(ratios, seed))


def median_interval(samples: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile-bootstrap interval of the median; samples that are not finite are left out."""
    kept = samples[np.isfinite(samples)]
    drawn = np.random.default_rng(seed).integers(0, len(kept), (RESAMPLES, len(kept)))
    low, high = np.quantile(np.median(kept[drawn], axis=1), (0.025, 0.975))
    return float(low), float(high)
