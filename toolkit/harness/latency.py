"""Latency, single-stream: engines take short turns in shuffled rounds, so that what the machine does hits all of them alike.

Engines measured one after the other differ by when they ran; in rounds they do not. Threads that spin after their work
would make neighbors slow, so sessions must not spin between calls: `benchmarks/harness.py` shows that a median taken in rounds
agrees with one taken alone.

Every so often all engines are reopened. Where a session's threads and memory happen to lie moves its times by several per
cent for as long as it lives; a single session would give narrow intervals around a number that the next process does not find
again (Kalibera and Jones, "Rigorous benchmarking in reasonable time", ISMM 2013).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from toolkit.harness.conditions import Monitor
from toolkit.harness.energy import Meter
from toolkit.harness.lane import Contender, Lane, Ticks
from toolkit.harness.measurement import Measurement
from toolkit.harness.stability import flags_of
from toolkit.harness.yardstick import NOTHING, Yardstick
from toolkit.types import Array, Frozen, Progress

WARM = 0.35
LAUNCH_SHARE = 8  # reopening the engines takes at most one in so many seconds


class Sampling(Frozen, frozen=True):
    """How long and how finely to measure. Times in seconds."""

    seconds: float = 140.0  # for all engines together, warm-up included
    precision: float = 0.03  # stop an engine once its median's 95 % interval is this narrow, as a share
    least_blocks: int = 12
    most_blocks: int = 400
    turn: float = 0.02  # how long an engine's turn lasts, where its calls are shorter; more where others' take seconds
    warmup: float = 20.0  # at most, each; and all together at most WARM of `seconds`
    seed: int = 0
    yardstick: bool = True


Checkpoint = Callable[[Sequence[Measurement]], object]


def measure_latency(
    entries: Sequence[Contender],
    plan: Sampling = Sampling(),  # noqa: B008  frozen
    *,
    monitor: Monitor | None = None,
    yardstick: Yardstick | None = None,
    meter: Meter | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    ticks: Ticks = time.perf_counter_ns,
) -> list[Measurement]:
    """One Measurement an entry, in their order, whatever happened to it: an engine that fails keeps what it had.

    `checkpoint` gets all measurements so far every few seconds and once when interrupted. `progress` counts tenths of a
    second of the plan.
    """
    lanes = [Lane(entry, ticks) for entry in entries]
    monitor = monitor or Monitor()
    if yardstick is None and plan.yardstick:
        yardstick = Yardstick()
    try:
        begin = ticks()
        for index, lane in enumerate(lanes):
            left = WARM * plan.seconds - (ticks() - begin) * 1e-9
            lane.warm(min(plan.warmup, left))
            if progress:
                progress(index, 10 * len(lanes))  # the first tenth of the bar
        # where some calls take seconds, short ones get more than one of theirs a round: they settle, and leave the time to others
        turn = max(plan.turn * 1e9, sum(lane.call_ns for lane in lanes) / max(len(lanes), 1) / 4)
        for lane in lanes:
            lane.pace(turn)
        _rounds(lanes, plan, begin, monitor, yardstick, meter, progress, checkpoint, ticks)
    except BaseException:
        if checkpoint:
            checkpoint(_measurements(lanes, plan, monitor))
        raise
    for lane in lanes:
        lane.finish(plan.precision)
    return _measurements(lanes, plan, monitor)


def _rounds(
    lanes: list[Lane],
    plan: Sampling,
    begin: int,
    monitor: Monitor,
    yardstick: Yardstick | None,
    meter: Meter | None,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
    ticks: Ticks,
) -> None:
    """Rounds until all have settled or time is up; the first is taken in any case, the last may stop halfway."""
    rng = np.random.default_rng(plan.seed)
    saved, end = ticks(), begin + round(plan.seconds * 1e9)
    launches = Launches(ticks)
    monitor.look()
    for done in range(plan.most_blocks):
        active = [lane for lane in lanes if lane.failure is None and not lane.settled]
        if not active or (ticks() >= end and done):
            break
        launches.renew(active)
        _round([active[i] for i in rng.permutation(len(active))], yardstick, meter, begin, end if done else None, ticks)
        monitor.look()
        for lane in active:
            lane.settle(plan.precision, plan.least_blocks)
        if progress:
            share = max((ticks() - begin) / (end - begin), sum(x.settled for x in lanes) / len(lanes))
            progress(len(lanes) + round(9 * len(lanes) * min(1.0, share)), 10 * len(lanes))
        if checkpoint and ticks() - saved > 10e9:
            checkpoint(_measurements(lanes, plan, monitor))
            saved = ticks()
    if progress:
        progress(10 * len(lanes), 10 * len(lanes))


class Launches:
    """Reopens the engines every `ROUNDS` rounds, or less often where that would take too much of the time."""

    ROUNDS = 2

    def __init__(self, ticks: Ticks) -> None:
        self._ticks = ticks
        self._rounds, self._cost, self._last = 0, 0, ticks()

    def renew(self, lanes: Sequence[Lane]) -> None:
        """Called before each round."""
        now, enough = self._ticks(), self._rounds >= self.ROUNDS
        self._rounds += 1
        if not enough or now - self._last < LAUNCH_SHARE * self._cost:
            return
        for reopen in dict.fromkeys(lane.entry.reopen for lane in lanes):
            same = [lane for lane in lanes if lane.entry.reopen == reopen]
            if reopen is not None:
                self._reopen(reopen, same)
        self._rounds, self._last = 1, self._ticks()
        self._cost = self._last - now

    def _reopen(self, reopen: Callable[[], None], lanes: Sequence[Lane]) -> None:
        try:
            reopen()
        except Exception as error:  # whatever a backend raises
            for lane in lanes:
                lane.fail(error)
            return
        for lane in lanes:
            lane.launched()


def _round(
    order: list[Lane], yardstick: Yardstick | None, meter: Meter | None, begin: int, end: int | None, ticks: Ticks
) -> None:
    reading = yardstick.read() if yardstick else NOTHING
    for lane in order:
        if end is not None and ticks() >= end:
            break
        lane.turn(ticks() - begin, reading, meter)
        reading = yardstick.read() if yardstick else NOTHING
        lane.close_block(reading)


def _measurements(lanes: list[Lane], plan: Sampling, monitor: Monitor) -> list[Measurement]:
    names = tuple(dict.fromkeys(lane.entry.label for lane in lanes))
    found = [lane.measurement(interleaved_with=names, seed=plan.seed, settings={"turn_s": plan.turn}) for lane in lanes]
    return [m.flagged(flags_of(m, monitor.moments)) for m in found]


def cost_of_timing(samples: int = 20_000) -> float:
    """What the loop itself adds to a sample, in seconds: the median time it reads for a call that does nothing."""
    lane = Lane(Contender("nothing", 1, _nothing, logits=False))
    lane._each = samples
    begin = time.perf_counter_ns()
    lane.turn(0, NOTHING)
    whole = time.perf_counter_ns() - begin
    return whole * 1e-9 / samples


def _nothing() -> Array | None:
    return None
