"""Lane: one engine at one batch on its way through a bench. Warm-up until steady, then a few samples each time its turn comes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from toolkit.errors import ToolkitError
from toolkit.harness.answers import check_logits
from toolkit.harness.energy import Meter
from toolkit.harness.environment import now
from toolkit.harness.measurement import Block, Clock, Flag, Measurement
from toolkit.harness.statistics import quantile
from toolkit.harness.yardstick import Reading

Ticks = Callable[[], int]  # a monotonic clock, in nanoseconds
LEAST_LAUNCHES = 4
FIRST_CALLS = 3


class Contender(NamedTuple):
    """What to call and what to call it: `call` answers `batch` images each time, with its input already in hand."""

    engine: str
    batch: int
    call: Callable[[], Any]  # logits [batch, classes], or anything where `logits` is False
    precision: str = ""
    target: str = "cpu"
    clock: Clock = "with-transfers"
    device_ns: Callable[[int], list[int]] | None = None  # so many runs -> nanoseconds of each by the device's own clock
    logits: bool = True
    threads: int = 1  # that the engine computes with, on a CPU
    reopen: Callable[[], None] | None = None  # reopens the engine; entries of one engine share it

    @property
    def label(self) -> str:
        return f"{self.engine} batch {self.batch}"


class Lane:
    """Mutable while the bench runs; `measurement()` is what stays."""

    def __init__(self, entry: Contender, ticks: Ticks = time.perf_counter_ns) -> None:
        self.entry = entry
        self._ticks = ticks
        self.started = now()
        self.warmup: list[int] = []
        self.blocks: list[Block] = []
        self.flags: list[Flag] = []
        self.failure: str | None = None
        self.settled = False
        self._each = 1  # samples a turn
        self._steps = 0
        self._launch = 0
        self._spent: list[float | None] = []  # joules of each turn

    def warm(self, seconds: float) -> None:
        """Run until the later half is no longer faster than the earlier one; at most `seconds`, then flag it. Once at least."""
        begin = self._ticks()
        while self.failure is None:
            self.warmup += self._take(1)
            estimate = float(np.median(self.warmup[-5:])) if self.warmup else 1.0
            window = min(20, max(2, round(1e8 / max(estimate, 1.0))))
            if steady(self.warmup, window):
                break
            if self._ticks() - begin > seconds * 1e9:
                text = f"not yet steady after {len(self.warmup)} calls in {(self._ticks() - begin) * 1e-9:.1f} s of warm-up"
                self._flag("not-steady", text, "Warm up longer: --warmup SECONDS, or --seconds for all together")
                break

    @property
    def call_ns(self) -> int:
        """How long a call takes, roughly; 0 before any."""
        return min(self.warmup[-20:], default=0)

    def pace(self, turn_ns: float) -> None:
        """How many samples fit a turn; 256 at most, 1 at least."""
        self._each = min(256, max(1, round(turn_ns / max(self.call_ns, 1))))

    def turn(self, at_ns: int, before: Reading, meter: Meter | None = None) -> None:
        """Take one block. `before` is the yardstick's reading ahead of it; `close_block` adds the one after it."""
        if self._each >= 4:
            self._take(1)  # the neighbor's leavings in the caches are the neighbor's cost
        counted = meter.read() if meter else None
        samples = self._take(self._each)
        if meter:
            self._spent.append(meter.between(counted, meter.read()))
        if samples:
            measured = Block(
                at_ns=at_ns,
                samples_ns=tuple(samples),
                yardstick_ns=before.work,
                handoff=before.handoff if self.entry.threads > 1 else (),
                launch=self._launch,
            )
            self.blocks.append(measured)

    def close_block(self, after: Reading) -> None:
        if self.blocks:
            last = self.blocks[-1]
            handoff = last.handoff + after.handoff if last.handoff else ()
            self.blocks[-1] = msgspec.structs.replace(last, yardstick_ns=last.yardstick_ns + after.work, handoff=handoff)

    def launched(self) -> None:
        """The engine was reopened: its first calls do not count."""
        self._launch += 1
        self._take(min(FIRST_CALLS, self._each))  # one is enough where a call takes as long as a turn

    def fail(self, error: Exception) -> None:
        """This engine is out, the others go on."""
        known = isinstance(error, ToolkitError)
        self.failure = str(error) if known else f"{self.entry.engine} failed: {type(error).__name__}: {error}"

    def _take(self, count: int) -> list[int]:
        """`count` samples, fewer where the engine fails or the clock steps back."""
        call, device, ticks = self.entry.call, self.entry.device_ns, self._ticks
        samples: list[int] = []
        answer: Any = None
        try:
            if device is not None:
                samples = device(count)
            else:
                for _ in range(count):
                    begin = ticks()
                    answer = call()
                    samples.append(ticks() - begin)
            if answer is not None and self.entry.logits:
                check_logits(np.asarray(answer), self.entry.batch, self.entry.engine)
        except Exception as error:  # whatever a backend raises
            self.fail(error)
        kept = [s for s in samples if s >= 0]
        self._steps += len(samples) - len(kept)
        return kept

    def settle(self, precision: float, least: int) -> None:
        """Mark as settled once the median's 95 % interval is narrower than `precision`, with `least` blocks or more.

        Blocks count while the cores were near to each other. An engine that can be reopened must have been, often enough for
        the interval to hold what that changes.
        """
        if sum(block.near for block in self.blocks) >= least and (
            self.entry.reopen is None or self._launch + 1 >= LEAST_LAUNCHES
        ):
            self.settled = self.width() <= precision

    def width(self) -> float:
        """Width of the median's 95 % interval over the median; infinite without samples."""
        measured = self.measurement()
        return quantile(measured.seconds, 0.5, measured.clusters).width if len(measured.seconds) else math.inf

    def finish(self, precision: float) -> None:
        """Add the flags that only the end can tell."""
        if self._steps:
            text = f"the clock stepped back {self._steps} times; those samples were dropped"
            self._flag("clock-step", text, "Stop what sets the clock, or move to a machine with a steady one, and measure again")
        if self.blocks and not self.settled and self.failure is None:
            width = self.width()
            shown = f"{width:.1%} wide" if math.isfinite(width) else "unbounded"
            text = f"the median's 95 % interval is {shown}, not under {precision:.0%}"
            self._flag("unsettled", text, "Measure longer (--seconds), or on a quieter machine")

    def _flag(self, trouble: Any, text: str, remedy: str) -> None:
        self.flags.append(Flag(trouble=trouble, text=text, remedy=remedy))

    def measurement(self, **more: Any) -> Measurement:
        """The raw samples so far."""
        entry = self.entry
        samples = [s for block in self.blocks for s in block.samples_ns]
        return Measurement(
            engine=entry.engine,
            precision=entry.precision,
            target=entry.target,
            batch=entry.batch,
            clock=entry.clock,
            started=self.started,
            blocks=tuple(self.blocks),
            warmup_ns=tuple(self.warmup),
            images=entry.batch * len(samples),
            duration_ns=sum(samples),
            joules=sum(j for j in self._spent if j) if self._spent and None not in self._spent else None,
            flags=tuple(self.flags),
            failure=self.failure,
            **more,
        )


def steady(samples: list[int], window: int) -> bool:
    """Whether the last `window` samples are no more than 2 % faster, by their medians, than the `window` before them."""
    if len(samples) < 2 * window:
        return False
    earlier, later = samples[-2 * window : -window], samples[-window:]
    return bool(np.median(later) >= 0.98 * np.median(earlier))
