"""Yardstick: fixed work, timed between blocks, that tells how fast the machine was at that moment.

Two runs an hour apart on a shared machine differ by more than most regressions. What slows an engine down (a neighbor on
the core, a lower clock, a full memory bus) slows this too, so the ratio of the two is steadier than either.

It is a stack of small matrix products on one thread: each is below the size at which numpy's BLAS starts threads of its own
(which would spin after the work and disturb the engine), and the stack is larger than a core's L2.

It does not see how near the cores are to each other. A host moves the cores of a virtual machine about; while they lie far
apart, handing work from one to the other takes several times as long, for seconds on end, and a small network on two threads
takes twice as long. That has a yardstick of its own, where the caller gives one: a chain of small layers on two threads, over
the same on one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from toolkit.types import Frozen

EDGE, DEPTH = 64, 64  # 3 MiB in play, 34 MFLOP, about 0.4 ms
READINGS = 3


class YardstickCard(Frozen, frozen=True):
    """What the yardstick was made of; times of another one are not comparable."""

    work: str
    numpy: str
    handoff: str | None = None


class Handoff(NamedTuple):
    """The same chain of small layers on one thread and on two; `name` says of what."""

    name: str
    one: Callable[[], object]
    two: Callable[[], object]


class Reading(NamedTuple):
    """`work`: nanoseconds of each of a few repeats. `handoff`: two threads' time over one's, or empty."""

    work: tuple[int, ...] = ()
    handoff: tuple[float, ...] = ()


NOTHING = Reading()


class Yardstick:
    """`read()` does the work a few times and returns how long each took."""

    def __init__(self, handoff: Handoff | None = None) -> None:
        name = handoff.name if handoff else None
        work = f"{DEPTH} products of {EDGE}x{EDGE} float32 on one thread"
        self.card = YardstickCard(work=work, numpy=np.__version__, handoff=name)
        self._handoff = handoff
        self._a, self._b = np.random.default_rng(0).standard_normal((2, DEPTH, EDGE, EDGE), np.float32)
        self._out = np.empty_like(self._a)
        self.read()

    def read(self) -> Reading:
        work = _times(lambda: np.matmul(self._a, self._b, out=self._out))
        if self._handoff is None:
            return Reading(work)
        return Reading(work, (min(_times(self._handoff.two)) / min(_times(self._handoff.one)),))


def _times(call: Callable[[], object]) -> tuple[int, ...]:
    times = []
    for _ in range(READINGS):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return tuple(times)
