"""What speaks against a measurement: drift, other load, stolen time, a moving clock, throttling. Each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from toolkit.harness.conditions import Moment
from toolkit.harness.measurement import FAR, Flag, Measurement
from toolkit.harness.statistics import by_block, trend

OTHER_LOAD = 0.05  # of all cores' time
STEAL = 0.01
DRIFT = 0.03
FREQUENCY = 0.05
SPEED = 0.10
FAR_CORES = 0.25


def flags_of(measurement: Measurement, moments: Sequence[Moment]) -> tuple[Flag, ...]:
    """The flags that the samples and the machine's state give reason for."""
    return (*_own(measurement), *_machine(moments))


def _own(measurement: Measurement) -> Iterator[Flag]:
    if measurement.scenario != "single-stream":
        return  # under load latency follows the queue, and a queue may well grow
    medians = by_block(measurement.seconds, measurement.groups)
    moved = trend(medians)
    if moved.p < 0.01 and abs(moved.change) > DRIFT:
        way = "slower" if moved.change > 0 else "faster"
        yield Flag(
            trouble="drift",
            text=f"grew {abs(moved.change):.1%} {way} from first to last block",
            remedy="Warm up longer (--warmup), let the machine cool down, and measure again",
        )
    if measurement.apart > FAR_CORES * len(measurement.blocks):
        yield Flag(
            trouble="far-cores",
            text=f"in {measurement.apart} of {len(measurement.blocks)} blocks two threads took {FAR:g} x one for small layers",
            remedy="Pin the machine's virtual cores to one socket, measure longer, or with --threads 1",
        )
    speed = np.array([np.median(block.yardstick_ns) for block in measurement.blocks if block.yardstick_ns])
    if len(speed) >= 8:
        low, high = np.quantile(speed, [0.1, 0.9])
        if high / low - 1 > SPEED:
            yield Flag(
                trouble="frequency",
                text=f"the machine's own speed moved by {high / low - 1:.0%} (fixed arithmetic, 10th to 90th percentile)",
                remedy="Fix the clock (cpupower frequency-set -g performance) or use a machine without neighbors",
            )


def _machine(moments: Sequence[Moment]) -> Iterator[Flag]:
    other = [m.other for m in moments[1:] if m.other is not None]
    if other and np.mean(other) > OTHER_LOAD:
        yield Flag(
            trouble="other-load",
            text=f"other processes used {np.mean(other):.0%} of the cores' time",
            remedy="Stop them, or measure when the machine is quiet",
        )
    steal = [m.steal for m in moments[1:] if m.steal is not None]
    if steal and np.mean(steal) > STEAL:
        yield Flag(
            trouble="steal",
            text=f"the hypervisor gave {np.mean(steal):.1%} of the cores' time to other guests",
            remedy="Use a dedicated machine, or compare ratios only",
        )
    for name, clocks in (("CPU", [m.mhz for m in moments if m.mhz]), ("GPU", [m.gpu_mhz for m in moments if m.gpu_mhz])):
        if len(clocks) >= 2 and (max(clocks) - min(clocks)) / np.median(clocks) > FREQUENCY:
            yield Flag(
                trouble="frequency",
                text=f"the {name} clock moved between {min(clocks):.0f} and {max(clocks):.0f} MHz",
                remedy=("nvidia-smi --lock-gpu-clocks=MHZ" if name == "GPU" else "cpupower frequency-set -g performance"),
            )
    counts = [m.cpu_throttles for m in moments if m.cpu_throttles is not None]
    reasons = sorted({reason for m in moments for reason in m.gpu_throttles})
    if (counts and counts[-1] > counts[0]) or reasons:
        yield Flag(
            trouble="throttled",
            text="throttled: " + ", ".join(reasons or [f"the CPU ran too hot {counts[-1] - counts[0]} times"]),
            remedy="Let it cool down, improve the cooling or raise the power limit",
        )
