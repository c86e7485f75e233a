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
    """The cores that this process may use, at least 1: those it is bound to, and at most its cgroup's quota of their time."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = quota(_read("/proc/self/cgroup"))
    return bound if allowed is None else max(1, min(bound, int(allowed)))


def quota(groups: str, root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The cores whose time a process may use by its cgroups (as a container's `--cpus 1.5`); None: all of it.

    `groups` is its /proc/self/cgroup. Version 2 has `cpu.max` ("QUOTA PERIOD", in microseconds), version 1 two files; a group is
    bound by every group above it too. Inside a container the path may be the host's: then the files lie at the root.
    """
    found: list[float] = []
    for line in groups.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        top = root if number == "0" else next((root / name for name in (controllers, "cpu") if (root / name).is_dir()), root)
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            folder = top.joinpath(*parts[:depth])
            words = _read(folder / "cpu.max").split()
            if not words:
                words = [_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
            if all(word.isdecimal() for word in words) and len(words) == 2 and int(words[1]) > 0:
                found.append(int(words[0]) / int(words[1]))
    return min(found, default=None)


def _info() -> str:
    return _read("/proc/cpuinfo")


def _read(path: str | Path) -> str:
    """The text of a small file of the system; empty where it is not there, as away from Linux."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _first(info: str, key: str) -> str | None:
    found = re.search(rf"^{re.escape(key)}[ \t]*:[ \t]*(.+)$", info, re.M)
    return found[1].strip() if found else None
