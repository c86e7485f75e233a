"""The CPU of this machine: what it is called, what it can do, and how much of it this process may use."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def name() -> str:
    """The model, with family and model number where the system tells them.

    A virtual machine often hides the name: two generations apart, each calls itself `AMD EPYC`, and must not be compared.
    """
    info = _info()
    found = {key: _first(info, key) for key in ("model name", "cpu family", "model", "CPU part")}
    words = found["model name"] or platform.processor() or platform.machine()
    if found["cpu family"] and found["model"]:
        return f"{words} (family {found['cpu family']}, model {found['model']})"
    return f"{words} (part {found['CPU part']})" if found["CPU part"] else words


def flags() -> tuple[str, ...]:
    """The instruction sets, sorted; empty where they cannot be read."""
    return tuple(sorted((_first(_info(), "flags") or _first(_info(), "Features") or "").split()))


def has_vnni() -> bool:
    """Whether this CPU adds 8-bit products in 32 bits (VNNI, or ARM's dot product), so that INT8 weights may use all 8 bits.

    Without it U8S8 kernels add pairs of products in 16 bits, which saturate. Where the flags cannot be read, the answer is no.
    """
    return platform.machine().lower() in ("aarch64", "arm64") or not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags())


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _info() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # not Linux


def _first(info: str, key: str) -> str | None:
    found = re.search(rf"^{re.escape(key)}[ \t]*:[ \t]*(.+)$", info, re.M)
    return found[1].strip() if found else None
