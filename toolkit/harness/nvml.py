"""NVML, where a driver is there: energy, clocks, temperature and why a GPU is slowed down. Nothing here is ever a guess."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

# nvml.h, nvmlClocksThrottleReasons: those that mean "slower than it could be"
THROTTLES = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}


@cache
def open_library() -> tuple[Any | None, str]:
    """pynvml, initialized; or None and the reason."""
    try:
        import pynvml
    except ImportError:
        return None, "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, f"NVML: {error}"
    return pynvml, ""


def ask(function: Callable[..., Any], *arguments: Any) -> Any | None:
    """The answer, or None where this GPU does not support the question."""
    library, _ = open_library()
    if library is None:
        return None
    try:
        return function(*arguments)
    except library.NVMLError:
        return None


def joules(index: int = 0) -> float | None:
    """The energy that GPU `index` has used since its driver was loaded; None where nothing counts it (before Volta)."""
    library, _ = open_library()
    if library is None:
        return None
    count = ask(lambda: library.nvmlDeviceGetTotalEnergyConsumption(library.nvmlDeviceGetHandleByIndex(index)))
    return None if count is None else count / 1000


def clock_mhz(index: int = 0) -> int | None:
    """The SM clock of GPU `index` now."""
    library, _ = open_library()
    if library is None:
        return None
    return ask(lambda: library.nvmlDeviceGetClockInfo(library.nvmlDeviceGetHandleByIndex(index), library.NVML_CLOCK_SM))


def throttles(index: int = 0) -> tuple[str, ...]:
    """Why GPU `index` is slowed down now; empty where it is not, or nothing tells."""
    library, _ = open_library()
    if library is None:
        return ()
    bits = ask(lambda: library.nvmlDeviceGetCurrentClocksThrottleReasons(library.nvmlDeviceGetHandleByIndex(index)))
    return tuple(name for bit, name in THROTTLES.items() if (bits or 0) & bit)
