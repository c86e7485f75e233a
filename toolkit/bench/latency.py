"""Latency, single-stream: engines take short turns in shuffled rounds, so that what the machine does hits all of them alike.

Engines measured one after the other differ by when they ran; in rounds they do not. Threads that spin after their work
would make neighbours slow, so sessions must not spin: `benchmarks/harness.py` shows that a median taken in rounds agrees
with one taken alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from toolkit.bench.conditions import Watch
from toolkit.bench.lane import Entry, Lane, Ticks
from toolkit.bench.measurement import Measurement
from toolkit.bench.stability import flags_of
from toolkit.bench.yardstick import Yardstick
from toolkit.types import Array, Frozen, Progress

READINGS = 3  # of the yardstick between two turns
WARM = 0.35


class Plan(Frozen, frozen=True):
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
    entries: Sequence[Entry],
    plan: Plan = Plan(),  # noqa: B008  frozen
    *,
    watch: Watch | None = None,
    yardstick: Yardstick | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    ticks: Ticks = time.perf_counter_ns,
) -> list[Measurement]:
    """One Measurement an entry, in their order, whatever happened to it: an engine that fails keeps what it had.

    `checkpoint` gets all measurements so far every few seconds and once when interrupted. `progress` counts tenths of a
    second of the plan.
    """
    lanes = [Lane(entry, ticks) for entry in entries]
    watch = watch or Watch()
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
        _rounds(lanes, plan, begin, watch, yardstick, progress, checkpoint, ticks)
    except BaseException:
        if checkpoint:
            checkpoint(_measurements(lanes, plan, watch))
        raise
    for lane in lanes:
        lane.finish(plan.precision)
    return _measurements(lanes, plan, watch)


def _rounds(
    lanes: list[Lane],
    plan: Plan,
    begin: int,
    watch: Watch,
    yardstick: Yardstick | None,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
    ticks: Ticks,
) -> None:
    """Rounds until all have settled or time is up; the first is taken in any case, the last may stop halfway."""
    rng = np.random.default_rng(plan.seed)
    saved, end = ticks(), begin + round(plan.seconds * 1e9)
    watch.look()
    for done in range(plan.most_blocks):
        active = [lane for lane in lanes if lane.failure is None and not lane.settled]
        if not active or (ticks() >= end and done):
            break
        _round([active[i] for i in rng.permutation(len(active))], yardstick, begin, end if done else None, ticks)
        watch.look()
        for lane in active:
            lane.settle(plan.precision, plan.least_blocks)
        if progress:
            share = max((ticks() - begin) / (end - begin), sum(x.settled for x in lanes) / len(lanes))
            progress(len(lanes) + round(9 * len(lanes) * min(1.0, share)), 10 * len(lanes))
        if checkpoint and ticks() - saved > 10e9:
            checkpoint(_measurements(lanes, plan, watch))
            saved = ticks()
    if progress:
        progress(10 * len(lanes), 10 * len(lanes))


def _round(order: list[Lane], yardstick: Yardstick | None, begin: int, end: int | None, ticks: Ticks) -> None:
    reading = _read(yardstick)
    for lane in order:
        if end is not None and ticks() >= end:
            break
        lane.turn(ticks() - begin, reading)
        reading = _read(yardstick)
        lane.close_block(reading)


def _read(yardstick: Yardstick | None) -> tuple[int, ...]:
    return tuple(yardstick() for _ in range(READINGS)) if yardstick else ()


def _measurements(lanes: list[Lane], plan: Plan, watch: Watch) -> list[Measurement]:
    names = tuple(dict.fromkeys(lane.entry.label for lane in lanes))
    found = [lane.measurement(interleaved_with=names, seed=plan.seed, settings={"turn_s": plan.turn}) for lane in lanes]
    return [m.flagged(flags_of(m, watch.moments)) for m in found]


def cost_of_timing(samples: int = 20_000) -> float:
    """What the loop itself adds to a sample, in seconds: the median time it reads for a call that does nothing."""
    lane = Lane(Entry("nothing", 1, _nothing, logits=False))
    lane._each = samples
    begin = time.perf_counter_ns()
    lane.turn(0, ())
    whole = time.perf_counter_ns() - begin
    return whole * 1e-9 / samples


def _nothing() -> Array | None:
    return None
