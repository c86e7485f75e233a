"""Energy: what counts joules on this machine, and how many. NVML for a GPU, Intel's and AMD's RAPL for a CPU, else nothing.

A counter is read before and after; nothing is estimated from a model of the processor. RAPL's packages are summed (the whole
socket, whoever used it) and their counters wrap around; each says at which value (Linux, Documentation/power/powercap).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from toolkit.harness import nvml

POWERCAP = Path("/sys/class/powercap")


class Meter(NamedTuple):
    """`name` says what counts; None of `read` is what cannot be told. Values are in joules and grow, but for `wraps`."""

    name: str
    read: Callable[[], tuple[float, ...] | None]
    wraps: tuple[float, ...] = ()  # where each counter starts again; 0: never

    def between(self, before: tuple[float, ...] | None, after: tuple[float, ...] | None) -> float | None:
        """Joules from one reading to the next: a counter that fell has wrapped once."""
        if before is None or after is None or len(before) != len(after):
            return None
        wraps = self.wraps or (0.0,) * len(before)
        spent = 0.0
        for a, b, wrap in zip(before, after, wraps, strict=True):
            if b < a and not wrap:
                return None
            spent += b - a if b >= a else b + wrap - a
        return spent


def meter(gpu: bool, powercap: Path = POWERCAP) -> tuple[Meter | None, str]:
    """What counts energy here, and where nothing does, why."""
    if gpu:
        if nvml.joules() is None:
            return None, f"no energy counter: {nvml.open_library()[1] or 'this GPU counts none'}"
        return Meter(name="NVML, the whole GPU", read=_gpu), ""
    zones = packages(powercap)
    if not zones:
        return None, f"no energy counter: the kernel shows no RAPL package under {powercap}"
    readable = [zone for zone in zones if _number(zone / "energy_uj") is not None]
    if len(readable) < len(zones):
        return None, f"no energy counter: {zones[0]}/energy_uj can be read by root only"
    wraps = tuple((_number(zone / "max_energy_range_uj") or 0) * 1e-6 for zone in zones)
    return Meter(name=f"RAPL, {len(zones)} CPU package{'s' * (len(zones) > 1)}", read=lambda: _rapl(zones), wraps=wraps), ""


def packages(powercap: Path = POWERCAP) -> tuple[Path, ...]:
    """The zones of whole packages; their parts (cores, memory) lie inside them and are not counted again.

    The same package may be there twice, under intel-rapl and under intel-rapl-mmio: only the first counts.
    """
    found: dict[str, Path] = {}
    for zone in sorted(powercap.glob("*rapl*:*")) if powercap.is_dir() else ():
        name = _text(zone / "name")
        if re.fullmatch(r"[a-z-]*rapl(-mmio)?:\d+", zone.name) and name.startswith("package"):
            found.setdefault(name, zone)
    return tuple(found.values())


def _rapl(zones: tuple[Path, ...]) -> tuple[float, ...] | None:
    values = [_number(zone / "energy_uj") for zone in zones]
    return None if None in values else tuple(value * 1e-6 for value in values if value is not None)


def _gpu() -> tuple[float, ...] | None:
    joules = nvml.joules()
    return None if joules is None else (joules,)


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
