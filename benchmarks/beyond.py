"""What neither ONNX Runtime nor OpenVINO does for INT8 on a CPU: each idea tried on a ResNet-50, and what it gains. One command:

    python benchmarks/beyond.py [--rounds 60] [-o benchmarks/results/beyond-PROCESSOR.json]

The subjects answer the same image, each in a process of its own, in shuffled rounds:

- as built: one image on all cores, floats in;
- an image a core: as many sessions of one thread as there are cores, an image each; the time is that of one image of them;
- uint8 pixels in: preprocessing inside the engine, so that no float copy is made;
- huge pages: as built, with glibc asked for pages of 2 MiB (GLIBC_TUNABLES), for weights and all else;
- no sums: the additions of identity shortcuts cut out. Its answers are wrong: it bounds what requantizing a sum within the
  convolution before it could gain, as those sums would still be computed.

ResNet-50 with random weights, min-max ranges: what it answers does not matter here. Raw samples are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table
from side_by_side import calls, ratio, side_by_side

from toolkit import cpu
from toolkit.disk.files import write_atomically
from toolkit.harness.environment import read_environment
from toolkit.types import Target

RESULTS = Path(__file__).resolve().parent / "results"
CALLS, LEAD = 8, 2
BASE = "as built"
HUGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def build(folder: Path, inside: bool) -> Path:
    """The model of a ResNet-50's INT8 engine for the CPU, calibrated on a few made-up pictures."""
    import toolkit
    from toolkit.recipe import Precision, Recipe

    name = "inside" if inside else "outside"
    recipe = Recipe.of("random:0", arch="resnet50", calibration=str(pictures(folder / "pictures")), inside=inside, name=name)
    settled = Precision(int8=True, equalize="none", weights="absmax", bias_correction=False)
    calibration = msgspec.structs.replace(recipe.calibration, method="minmax")
    recipe = msgspec.structs.replace(recipe, precision=settled, calibration=calibration)
    return toolkit.build(recipe, out=folder, proof=False)[0].path / "model.onnx"


def pictures(folder: Path) -> Path:
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for seed in range(16):
        pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).resize((256, 256)).save(folder / f"{seed:02}.png")
    return folder


def without_sums(path: Path) -> tuple[Path, int]:
    """The same file with each sum of an identity shortcut replaced by the branch of its convolution; and how many there were."""
    import onnx

    model = onnx.load(path)
    made = {name: node for node in model.graph.node for name in node.output}
    cut: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Add":
            branches = [behind(made, name) for name in node.input]
            convolutions = [name for name in branches if name in made and made[name].op_type == "Conv"]
            if len(convolutions) == 1:
                cut[node.output[0]] = convolutions[0]
    for node in model.graph.node:
        node.input[:] = [cut.get(name, name) for name in node.input]
    read = {output.name for output in model.graph.output}
    kept: list[Any] = []
    for node in reversed(model.graph.node):  # else the pair in front of a sum would still read its convolution, unfused
        if read.intersection(node.output):
            kept.insert(0, node)
            read.update(node.input)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    target = path.with_name("no-sums.onnx")
    onnx.save(model, target)
    return target, len(cut)


def behind(made: dict[str, Any], name: str) -> str:
    """The tensor that a Q/DQ pair stands behind: a convolution's, a projection's included, or that of the sum before."""
    while name in made and made[name].op_type in ("QuantizeLinear", "DequantizeLinear"):
        name = made[name].input[0]
    return name


def worker(model: str, sessions: int) -> None:
    """Says how much memory of it lies in huge pages, then for each line on stdin the nanoseconds that an image took, in calls."""
    from toolkit.backends.onnxruntime import backend

    threads = 1 if sessions > 1 else cpu.cores()
    live = [backend.session(model, Target("cpu"), {"threads": threads, "spin": threads > 1}) for _ in range(sessions)]
    entry = live[0].get_inputs()[0]
    shape = [1 if not isinstance(n, int) else n for n in entry.shape]
    random = np.random.default_rng(0)
    image = random.integers(0, 256, shape, np.uint8)
    if entry.type != "tensor(uint8)":
        image = ((image - 127.5) / 64).astype(np.float32)
    runs = [partial(one.run, None, {entry.name: image}) for one in live]
    with ThreadPoolExecutor(sessions) as pool:
        call: Callable[[], object] = runs[0] if sessions == 1 else lambda: list(pool.map(lambda run: run(), runs))
        call()
        print(huge_pages(), flush=True)
        for _ in sys.stdin:
            print(json.dumps([ns / sessions for ns in calls(call, CALLS, lead=LEAD)]), flush=True)


def huge_pages() -> int:
    """kB of this process in huge pages, as Linux tells; 0 elsewhere."""
    try:
        found = re.search(r"AnonHugePages:\s+(\d+)", Path("/proc/self/smaps_rollup").read_text())
    except OSError:
        found = None
    return int(found[1]) if found else 0


class Subject:
    """A worker, asked for a turn at a time."""

    def __init__(self, model: Path, sessions: int = 1, **environ: str) -> None:
        command = [sys.executable, __file__, "--worker", str(model), str(sessions)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env={**os.environ, **environ}, **pipes)  # type: ignore[call-overload]
        self.huge_kb = int(self.process.stdout.readline())

    def turn(self) -> list[float]:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: list[float] = json.loads(self.process.stdout.readline())
        return found


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rounds", type=int, default=60)
    ask.add_argument("-o", "--output", type=Path)
    ask.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = ask.parse_args()
    if given.worker:
        return worker(given.worker[0], int(given.worker[1]))
    with tempfile.TemporaryDirectory() as name:
        outside, inside = build(Path(name), inside=False), build(Path(name), inside=True)
        bare, sums = without_sums(outside)
        subjects = {
            BASE: Subject(outside),
            "an image a core": Subject(outside, cpu.cores()),
            "uint8 pixels in": Subject(inside),
            "huge pages": Subject(outside, **HUGE),
            f"no sums ({sums} cut)": Subject(bare),
        }
        samples = side_by_side({name: subject.turn for name, subject in subjects.items()}, given.rounds)
        for subject in subjects.values():
            subject.process.communicate()
    table = Table("ResNet-50 INT8", "p50 ms an image", "times as fast", "in huge pages, MB")
    for name, turns in samples.items():
        middle, low, high = ratio(samples[BASE], turns)
        huge = f"{subjects[name].huge_kb / 1e3:.0f}"
        table.add_row(name, f"{np.median(turns) * 1e-6:.2f}", f"{middle:.3f} [{low:.3f}, {high:.3f}]", huge)
    Console(width=110).print(table)
    where = read_environment()
    record = {"environment": msgspec.to_builtins(where), "sums": sums, "samples_ns": samples}
    record["huge_kb"] = {name: subject.huge_kb for name, subject in subjects.items()}
    slug = re.sub("[^a-z0-9]+", "-", where.device.lower()).strip("-")
    output = given.output or RESULTS / f"beyond-{slug}.json"
    write_atomically(output, json.dumps(record, indent=1).encode() + b"\n")
    return None


if __name__ == "__main__":
    main()
