"""Yardstick: a fixed piece of arithmetic, timed between blocks, that tells how fast the machine was at that moment.

Two runs an hour apart on a shared machine differ by more than most regressions. What slows an engine down (a neighbour on
the core, a lower clock, a full memory bus) slows this too, so the ratio of the two is steadier than either.

It is a stack of small matrix products on one thread: each is below the size at which numpy's BLAS starts threads of its own
(which would spin after the work and disturb the engine), and the stack is larger than a core's L2. On several threads it was
tried and given up: under load it then times how long the scheduler takes to wake a thread, which says nothing of the engine.
"""

from __future__ import annotations

import time

import numpy as np

from toolkit.types import Frozen

EDGE, DEPTH = 64, 64  # 3 MiB in play, 34 MFLOP, about 0.4 ms


class YardstickCard(Frozen, frozen=True):
    """What the yardstick was made of; times of another one are not comparable."""

    work: str
    numpy: str


class Yardstick:
    """Calling it does the work once and returns how long it took, in nanoseconds."""

    def __init__(self) -> None:
        self.card = YardstickCard(work=f"{DEPTH} products of {EDGE}x{EDGE} float32 on one thread", numpy=np.__version__)
        self._a, self._b = np.random.default_rng(0).standard_normal((2, DEPTH, EDGE, EDGE), np.float32)
        self._out = np.empty_like(self._a)
        for _ in range(3):
            self()

    def __call__(self) -> int:
        start = time.perf_counter_ns()
        np.matmul(self._a, self._b, out=self._out)
        return time.perf_counter_ns() - start
