"""What benchmarks/gpu.py says: the comparison with trtexec, and the table."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

import numpy as np
from gpu_subjects import Subject

from toolkit.errors import DeviceError
from toolkit.harness.measurement import Measurement
from toolkit.harness.verdict import Verdict


def compare_trtexec(tool: str, subject: Subject, count: int, measurements: Sequence[Measurement]) -> str:
    """One line. Raises DeviceError where trtexec prints no figure."""
    made = subject.runner.manifest
    shape = "x".join(map(str, (count, *made.inputs[0].shape[1:])))
    flags = ["--noDataTransfers", "--useCudaGraph", "--useSpinWait", "--duration=2", "--warmUp=500"]
    command = [tool, f"--loadEngine={subject.folder / made.file}", f"--shapes={made.inputs[0].name}:{shape}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    theirs = trtexec_median(done.stdout)
    if theirs is None:
        raise DeviceError(f"trtexec gave no figure: {(done.stderr or done.stdout)[-300:]}")
    ours = median(measurements, subject.name, count, "device")
    return f"{subject.name}, batch {count}: trtexec {theirs:.3f} ms, here {ours:.3f} ms ({ours / theirs - 1:+.1%})"


def trtexec_median(text: str) -> float | None:
    """Milliseconds of its line `GPU Compute Time: ... median = 0.351 ms`."""
    found = re.search(r"GPU Compute Time:.*?median = ([0-9.]+) ms", text)
    return float(found[1]) if found else None


def median(measurements: Sequence[Measurement], name: str, count: int, clock: str) -> float:
    """Milliseconds; NaN where it was not measured."""
    for m in measurements:
        if (m.engine, m.batch, m.clock, m.scenario) == (name, count, clock, "single-stream") and len(m.seconds):
            return float(np.median(m.seconds)) * 1e3
    return float("nan")


def table(
    title: str,
    batches: Sequence[int],
    names: Sequence[str],
    measurements: Sequence[Measurement],
    verdicts: Sequence[Verdict],
    checks: Sequence[str],
    skipped: dict[str, str],
) -> str:
    """Markdown: milliseconds by each clock, and images a second."""
    about = "Median milliseconds a batch by three clocks; images a second of the device alone, and of two threads with transfers."
    lines = [f"# {title}", "", about, ""]
    heads = ("engine", "batch", "device", "with transfers", "end to end", "device images/s", "images/s")
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in names:
        for count in batches:
            times = [median(measurements, name, count, clock) for clock in ("device", "with-transfers", "end-to-end")]
            key = (name, count, "offline")
            rates = [m.throughput for m in measurements if (m.engine, m.batch, m.scenario) == key]
            cells = [f"{t:.3f}" if t == t else "" for t in times]
            cells += [f"{count / times[0] * 1e3:,.0f}" if times[0] == times[0] else ""]
            cells += [f"{rates[0]:,.0f}" if rates and rates[0] else ""]
            lines.append(f"| {name} | {count} | " + " | ".join(cells) + " |")
    for heading, rows in (
        ("Accuracy", [f"{v.engine}: {v.text}" for v in verdicts]),
        ("trtexec", checks),
        ("Left out", [f"{name}: {why}" for name, why in skipped.items()]),
    ):
        lines += ["", f"## {heading}", "", *[f"- {row}" for row in rows or ["nothing"]]]
    return "\n".join(lines) + "\n"
