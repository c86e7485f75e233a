"""Yardstick: a fixed piece of arithmetic, timed between blocks, that tells how fast the machine was at that moment.

Two runs an hour apart on a shared machine differ by more than most regressions. What slows an engine down (a neighbour on
the core, a lower clock, a full memory bus) slows this too, so the ratio of the two is steadier than either.

It is a stack of small matrix products: each is below the size at which numpy's BLAS starts threads of its own (which would
spin after the work and disturb the engine), the stack is larger than a core's L2, and every core that the process may use
takes a share, as an engine's threads do.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from toolkit.types import Frozen

EDGE, DEPTH = 64, 64  # 64 products of 64x64 float32 a thread: 3 MiB in play, 34 MFLOP


class YardstickCard(Frozen, frozen=True):
    """What the yardstick was made of; times of another one are not comparable."""

    work: str
    threads: int
    numpy: str


class Yardstick:
    """Calling it does the work once and returns how long it took, in nanoseconds. `with` frees its threads."""

    def __init__(self, threads: int | None = None) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = min(threads or cores, 8)
        work = f"{DEPTH} products of {EDGE}x{EDGE} float32 a thread"
        self.card = YardstickCard(work=work, threads=threads, numpy=np.__version__)
        rng = np.random.default_rng(0)
        shape = (threads, DEPTH, EDGE, EDGE)
        self._a = rng.standard_normal(shape, np.float32)
        self._b = rng.standard_normal(shape, np.float32)
        self._out = np.empty(shape, np.float32)
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None
        for _ in range(3):
            self()

    def __call__(self) -> int:
        start = time.perf_counter_ns()
        others = [self._pool.submit(self._share, i) for i in range(1, len(self._a))] if self._pool else []
        self._share(0)
        for other in others:
            other.result()
        return time.perf_counter_ns() - start

    def _share(self, index: int) -> None:
        np.matmul(self._a[index], self._b[index], out=self._out[index])

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown()

    def __enter__(self) -> Yardstick:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
