"""Measurement: immutable raw samples, with what was measured, where, when and how. Statistics are derived, never stored."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from toolkit.types import Frozen

Clock = Literal["device", "with-transfers", "end-to-end"]
Scenario = Literal["single-stream", "offline", "server"]
Trouble = Literal[
    "drift",
    "other-load",
    "steal",
    "frequency",
    "throttled",
    "not-steady",
    "unsettled",
    "clock-step",
    "overrun",
    "far-cores",
]
FAR = 1.1  # two threads' time over one's, from which on the cores are too far apart
CLOCKS: dict[str, str] = {
    "device": "on the device only: input and output already there",
    "with-transfers": "arrays in host memory, in and out, copies included",
    "end-to-end": "pictures in, classes out, preprocessing included",
}


class Flag(Frozen, frozen=True):
    """Why a number is not to be trusted as it stands, in words, and what to do about it."""

    trouble: Trouble
    text: str
    remedy: str


class Block(Frozen, frozen=True):
    """Samples taken one right after the other.

    `at_ns` is the start, counted from the start of the run. `yardstick_ns` times a fixed piece of arithmetic just before
    and after: how fast the machine was at that moment. In a server trial each sample counts from its scheduled arrival.
    `handoff`, for an engine on several threads, is what handing work from core to core cost before and after: small layers on
    two threads, over the same on one. `launch` counts how often the engine had been reopened before.
    """

    at_ns: int
    samples_ns: tuple[int, ...]
    yardstick_ns: tuple[int, ...] = ()
    handoff: tuple[float, ...] = ()
    launch: int = 0

    def __post_init__(self) -> None:
        if min(self.samples_ns, default=0) < 0 or min(self.yardstick_ns, default=0) < 0:
            raise ValueError("a time below 0 was never measured")

    @property
    def near(self) -> bool:
        """Whether the cores were near enough to each other for small layers to gain, or at least not to lose, by two threads."""
        return all(ratio <= FAR for ratio in self.handoff)


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """One engine at one batch, under one clock and one scenario. Every time is in nanoseconds, as it was read."""

    engine: str
    precision: str
    target: str
    batch: int
    clock: Clock
    scenario: Scenario = "single-stream"
    started: str  # ISO 8601, UTC
    blocks: tuple[Block, ...] = ()
    warmup_ns: tuple[int, ...] = ()
    images: int = 0  # answered during `duration_ns`
    duration_ns: int = 0  # the time for throughput: single-stream the sum of the samples, else the wall time of the trial
    streams: int = 1  # callers at once
    offered: float | None = None  # server: images a second that arrived
    bound_ns: int | None = None  # server: what p99 is held to
    interleaved_with: tuple[str, ...] = ()  # what else ran in the same shuffled rounds
    joules: float | None = None  # over `duration_ns`, as NVML or RAPL counted them (`energy.py`); None where nothing counts
    flags: tuple[Flag, ...] = ()
    failure: str | None = None  # why it ended early; what was measured until then is here
    seed: int = 0  # of the order of rounds, or of the arrivals
    settings: dict[str, Any] = {}  # what else the scenario was set to

    def __post_init__(self) -> None:
        if self.batch < 1 or min(self.images, self.duration_ns, self.joules or 0) < 0:
            raise ValueError("a measurement is of 1 image or more, and counts none, no time and no energy below 0")

    @property
    def key(self) -> tuple[str, int, str, str]:
        """What two files must share for their numbers to be compared."""
        return (self.engine, self.batch, self.clock, self.scenario)

    @cached_property
    def seconds(self) -> NDArray[np.float64]:
        """All samples in the order taken, float64 [samples], in seconds."""
        return np.fromiter((s for block in self.blocks for s in block.samples_ns), np.float64) * 1e-9

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """The block that each of `seconds` came from, int64 [samples]."""
        return np.repeat(np.arange(len(self.blocks)), [len(block.samples_ns) for block in self.blocks])

    @cached_property
    def clusters(self) -> NDArray[np.int64]:
        """What is alike inside, int64 [samples]: the launch of each sample, where there are several; otherwise its block."""
        launches = np.array([block.launch for block in self.blocks], np.int64)
        if len(np.unique(launches)) < 2:
            return self.groups
        return np.repeat(launches, [len(block.samples_ns) for block in self.blocks])

    @property
    def apart(self) -> int:
        """How many blocks were taken while the cores were too far apart."""
        return sum(not block.near for block in self.blocks)

    @property
    def throughput(self) -> float | None:
        """Images a second; None where nothing was answered."""
        return self.images / (self.duration_ns * 1e-9) if self.images and self.duration_ns > 0 else None

    @property
    def images_per_joule(self) -> float | None:
        """None where nothing counts energy."""
        return self.images / self.joules if self.joules else None

    @property
    def watts(self) -> float | None:
        """Mean power while it ran; None where nothing counts energy."""
        return self.joules / (self.duration_ns * 1e-9) if self.joules and self.duration_ns > 0 else None

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against the numbers."""
        return not self.flags and self.failure is None

    def flagged(self, flags: Iterable[Flag]) -> Measurement:
        """The same samples with more flags."""
        return msgspec.structs.replace(self, flags=(*self.flags, *flags))
