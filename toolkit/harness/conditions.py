"""Conditions: what the machine was doing while it was measured, read between blocks and never inside one."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from toolkit.harness import nvml
from toolkit.types import Frozen


class Moment(Frozen, frozen=True):
    """The machine between two looks at it. Shares are of the time that all cores together had, 0 to 1."""

    at_ns: int  # the later look, counted from the start of the run
    other: float | None = None  # used by processes other than this one
    steal: float | None = None  # taken by the hypervisor for other guests
    mhz: float | None = None  # mean of the cores, as the kernel tells; a guest often sees a constant
    load: float | None = None  # runnable processes over the last minute
    cpu_throttles: int | None = None  # thermal throttle events since boot
    gpu_mhz: int | None = None
    gpu_throttles: tuple[str, ...] = ()


class Monitor:
    """Looks at the machine when told to; a second look at once costs about 0.2 ms."""

    def __init__(self, gpu: bool = False) -> None:
        self._gpu = gpu
        self._start = time.perf_counter_ns()
        self._before = _times()
        self.moments: list[Moment] = []

    def look(self) -> Moment:
        """Add a Moment for the time since the last look."""
        now = _times()
        other = steal = None
        if now is not None and self._before is not None:
            busy, stolen, whole, own = (b - a for a, b in zip(self._before, now, strict=True))
            if whole > 0:
                other, steal = max(0.0, busy - own) / whole, stolen / whole
        self._before = now
        moment = Moment(
            at_ns=time.perf_counter_ns() - self._start,
            other=other,
            steal=steal,
            mhz=_mhz(),
            load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            cpu_throttles=_throttle_count(),
            gpu_mhz=nvml.clock_mhz() if self._gpu else None,
            gpu_throttles=nvml.throttles() if self._gpu else (),
        )
        self.moments.append(moment)
        return moment


def _times() -> tuple[float, float, float, float] | None:
    """Seconds since boot, over all cores: busy, stolen, and busy + idle; and what this process used. None without /proc."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            fields = [float(x) for x in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, idle, wait, irq, soft, steal = (x / tick for x in fields)
    busy = user + nice + system + irq + soft
    return busy, steal, busy + idle + wait + steal, time.process_time()


def _mhz() -> float | None:
    frequencies = [int(p.read_text()) / 1000 for p in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    if not frequencies:
        try:
            info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        frequencies = [float(x) for x in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", info, re.M)]
    return sum(frequencies) / len(frequencies) if frequencies else None


def _throttle_count() -> int | None:
    counts = [int(p.read_text()) for p in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    return sum(counts) if counts else None
