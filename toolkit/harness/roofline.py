"""Roofline: what this machine can do at most, measured, and how near to it an engine comes (Williams et al., 2009).

A network of `macs` multiply-adds an image cannot run faster than a large matrix product does the same arithmetic, nor
faster than a large copy moves the bytes it must read and write.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from toolkit.harness.measurement import Measurement
from toolkit.types import Frozen

REPEATS = 7
COPY_BYTES = 256 << 20  # far beyond any cache, so that memory itself is timed


class Peaks(Frozen, frozen=True):
    """The roofs: multiply-adds a second by the type of the operands, and bytes a second. `how` says what was timed."""

    macs: dict[str, float]  # "fp32", and "int8" where a library could be timed
    bytes: float
    threads: int
    how: str

    def __post_init__(self) -> None:
        if not min(self.bytes, *self.macs.values(), math.inf) > 0:
            raise ValueError("peaks are above 0")


class Work(Frozen, frozen=True):
    """What an engine must do: multiply-adds and activation bytes an image, weight bytes a batch."""

    macs: int
    weight_bytes: int
    activation_bytes: int

    def __post_init__(self) -> None:
        if min(self.macs, self.weight_bytes, self.activation_bytes) < 0:
            raise ValueError("no work is below 0")

    def intensity(self, batch: int) -> float:
        """Multiply-adds for each byte that must come from or go to memory."""
        return self.macs * batch / max(1, self.weight_bytes + self.activation_bytes * batch)


class Reach(Frozen, frozen=True):
    """One measurement under its roof."""

    engine: str
    batch: int
    intensity: float  # multiply-adds a byte
    rate: float  # multiply-adds a second, reached
    roof: float  # multiply-adds a second, the most there could be at this intensity
    kind: str  # of the roof: fp32 or int8

    @property
    def share(self) -> float:
        """0 to 1: how much of the roof was reached."""
        return self.rate / self.roof


def measure_peaks(threads: int, gemms: dict[str, Callable[[], int]] | None = None) -> Peaks:
    """Time a large FP32 matrix product and a large copy through numpy, and each of `gemms`; about a second each.

    A function in `gemms` runs one product and returns its multiply-adds; backends know how to make one of a type that numpy
    lacks, and a faster FP32 one counts in place of numpy's.
    """
    size = 2048
    left, right = np.random.default_rng(0).standard_normal((2, size, size), dtype=np.float32)
    out = np.empty_like(left)
    macs = {"fp32": size**3 / _best(lambda: np.matmul(left, right, out=out))}
    for kind, gemm in (gemms or {}).items():
        macs[kind] = max(macs.get(kind, 0.0), gemm() / _best(gemm))
    source = np.ones(COPY_BYTES // 8, np.float64)
    target = np.empty_like(source)
    rate = 2 * COPY_BYTES / _best(lambda: np.copyto(target, source))
    how = f"best of {REPEATS}: a {size} x {size} matrix product; a copy of {COPY_BYTES >> 20} MiB, bytes read and written"
    return Peaks(macs=macs, bytes=rate, threads=threads, how=how)


def reach(measurement: Measurement, work: Work, peaks: Peaks) -> Reach | None:
    """How near to the roof a measurement came; None where it has no throughput.

    FP16 on a CPU is computed in FP32, and is judged so.
    """
    if measurement.throughput is None:
        return None
    kind = "int8" if "int8" in measurement.precision and "int8" in peaks.macs else "fp32"
    intensity = work.intensity(measurement.batch)
    return Reach(
        engine=measurement.engine,
        batch=measurement.batch,
        intensity=intensity,
        rate=measurement.throughput * work.macs,
        roof=min(peaks.macs[kind], peaks.bytes * intensity),
        kind=kind,
    )


def _best(run: Callable[[], object]) -> float:
    """Seconds of the fastest of a few runs: a peak is what the machine can do when nothing disturbs it."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
