"""How long TensorRT-RTX takes to build for a GPU that is not here, how much memory, and whether it builds the same bytes again.

    .venv/bin/python benchmarks/rtx_build.py [--repeats 3] [--target rtx:sm86 --target rtx] [--graph "resnet50 fp8+fp16"]

Each build runs in a process of its own that holds just the graph, as `toolkit build` hands it over; seconds are wall time of
`compile`, memory is the larger of its peak (VmHWM) and its child's. INT8 is also built as one engine for every GPU (`rtx`), FP8
for those that have it (`rtx:sm89+`). Then INT8 and FP8 predict side by side, in turns, on ONNX Runtime's CPU. Writes
benchmarks/results/rtx_build.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from side_by_side import block, ratio, side_by_side

from toolkit.types import Target

RESULTS = Path(__file__).parent / "results"
LIMIT_SECONDS, LIMIT_MIB = 3.0, 1536.0  # asked of ResNet-50 in INT8 and in FP8 on 2 cores
LIMIT_RATIO = 3.0  # FP8's prediction, of INT8's time
ROUNDS = 9
TARGETS = ("rtx:sm86", "rtx:sm89", "rtx:sm120")
MORE = {"int8+fp16": ("rtx",), "fp8+fp16": ("rtx:sm89+",)}  # one engine for several GPUs

CHILD = """
import hashlib, json, pathlib, resource, sys, tempfile, time
import onnx_ir
from toolkit.backends.tensorrt import backend as tensorrt
from toolkit.recipe import Build
from toolkit.types import Target
graph = onnx_ir.load(sys.argv[1])
folder = pathlib.Path(tempfile.mkdtemp(dir=sys.argv[3]))
start = time.perf_counter()
made = tensorrt.compile(graph, Build(batch=(1, 8, 32)), Target.parse(sys.argv[2]), folder)
seconds = time.perf_counter() - start
plan = (folder / made.file).read_bytes()
layers = json.loads((folder / tensorrt.LAYERS).read_text())["layers"]
status = pathlib.Path("/proc/self/status").read_text()
peaks = [int(status.split("VmHWM:")[1].split()[0]) / 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]
print(json.dumps({
    "seconds": seconds, "peak_mib": max(peaks), "bytes": len(plan), "sha256": hashlib.sha256(plan).hexdigest(),
    "kernels": len(layers), "generated": sum(row["type"] == "kgen" for row in layers),
    "int8": sum(row["inputs"][:1] in (["Int8"], ["FP8"]) and row["type"] != "kgen" for row in layers), "notes": made.notes,
    "library": made.versions,
}))
"""


def graphs(folder: Path, quick: bool) -> dict[str, Path]:
    """The typed graphs of the packaged ResNet-18 and of ResNet-50 with random weights, at each precision, as ONNX files."""
    import onnx_ir
    import torch

    from toolkit import calibration
    from toolkit.graph.export import export
    from toolkit.graph.fp16 import to_fp16
    from toolkit.graph.qdq import quantize
    from toolkit.graph.scheme_cpu import watched
    from toolkit.recipe import Calibration, Precision, Preprocess
    from toolkit.reference.resnet import ResNet

    found = {}
    for arch in ("resnet18",) if quick else ("resnet18", "resnet50"):
        torch.manual_seed(0)
        plain = export(ResNet(arch), Preprocess())
        images = [torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0)).numpy()]
        ranges = calibration.collect(plain, images, watched(plain))
        made = {"fp32": plain, "fp16": to_fp16(plain)}
        for kind in ("int8", "fp8"):
            precision = Precision(int8=kind == "int8", fp8=kind == "fp8")
            made[f"{kind}+fp16"] = to_fp16(quantize(plain, ranges, precision, Calibration(method="minmax"), scheme="tensorrt"))
        for precision, graph in made.items():
            path = folder / f"{arch}-{precision}.onnx"
            onnx_ir.save(graph, path)
            found[f"{arch} {precision}"] = path
    return found


def targets_of(graph: str, asked: Sequence[str] | None) -> list[str]:
    """What to build a graph for: FP8 only for SMs that have it."""
    precision = graph.split()[1]
    every = [*(asked or TARGETS), *(() if asked else MORE.get(precision, ()))]
    return [target for target in every if precision != "fp8+fp16" or (Target.parse(target).sm or 0) >= 89]


def predictions(paths: dict[str, Path]) -> dict[str, list[int]]:
    """Nanoseconds of predicting a batch of 8, in shuffled rounds."""
    import numpy as np
    import onnx_ir

    from toolkit.graph.run import predicting_runner

    live = {name: predicting_runner(onnx_ir.load(path), Target.parse("rtx:sm89")) for name, path in paths.items()}
    batch = np.random.default_rng(0).standard_normal((8, 3, 224, 224)).astype(np.float32)
    return side_by_side({name: partial(block, partial(run, batch), 1) for name, run in live.items()}, ROUNDS)


def build(path: Path, target: str, folder: Path) -> dict[str, object]:
    """One build in a process of its own."""
    command = [sys.executable, "-c", CHILD, str(path), target, str(folder)]
    with tempfile.TemporaryDirectory(dir=folder) as empty:  # no plan is taken from an earlier build
        environment = {**os.environ, "XDG_CACHE_HOME": empty}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    if done.returncode:
        sys.exit(f"{path.name} for {target}: {done.stderr.strip().splitlines()[-1]}")
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(rows: list[dict[str, Any]], predicted: dict[str, list[int]]) -> str:
    """The rows as Markdown, and whether the limits were met."""
    heads = ("graph", "target", "median s", "peak MiB", "engine MB", "kernels", "of them generated", "INT8 or FP8 layers",
             "builds that differ")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---|---|---:|---:|---:|---:|---:|---:|---|"]
    for row in rows:
        runs = row["runs"]
        seconds, peak, first = statistics.median(r["seconds"] for r in runs), max(r["peak_mib"] for r in runs), runs[0]
        [(_, most)] = Counter(r["sha256"] for r in runs).most_common(1)
        lines.append(
            f"| {row['graph']} | {row['target']} | {seconds:.2f} | {peak:.0f} | {first['bytes'] / 1e6:.1f} | {first['kernels']} "
            f"| {first['generated']} | {first['int8']} | {len(runs) - most} of {len(runs)} |"
        )
    for kind in ("int8", "fp8"):
        hard = [row["runs"] for row in rows if row["graph"] == f"resnet50 {kind}+fp16"]
        if hard:
            worst = max(statistics.median(r["seconds"] for r in runs) for runs in hard)
            peak = max(r["peak_mib"] for runs in hard for r in runs)
            asked = f"asked: {LIMIT_SECONDS}), {peak:.0f} MiB (asked: {LIMIT_MIB:.0f})"
            lines += ["", f"ResNet-50 {kind.upper()}: the slowest target takes {worst:.2f} s ({asked}."]
    if predicted:
        told = ", ".join(f"{name} {statistics.median(took) / 1e9:.2f} s" for name, took in predicted.items())
        int8, fp8 = ([[float(took)] for took in rounds] for rounds in predicted.values())
        times, low, high = ratio(fp8, int8)
        share = f"FP8 takes {times:.2f} times as long [{low:.2f}, {high:.2f}] over {len(fp8)} rounds (asked: {LIMIT_RATIO})"
        lines += ["", f"Predicting a batch of 8: {told}; {share}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--target", action="append", help="absent: three single SMs, and one engine for several")
    parser.add_argument("--graph", help="this one only, and no files written")
    parser.add_argument("--quick", action="store_true", help="ResNet-18 only, and no files written")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = graphs(folder, options.quick)
        for graph, path in paths.items():
            if options.graph not in (None, graph):
                continue
            for target in targets_of(graph, options.target):
                runs = [build(path, target, folder) for _ in range(options.repeats)]
                rows.append({"graph": graph, "target": target, "runs": runs})
                print(f"{graph} {target}: {[round(r['seconds'], 2) for r in runs]}", file=sys.stderr)
        eights = {name: path for name, path in paths.items() if name in ("resnet50 int8+fp16", "resnet50 fp8+fp16")}
        predicted = predictions(eights) if eights and options.graph is None else {}
    text = table(rows, predicted)
    print(text)
    if not (options.quick or options.graph):
        machine = {"cores": len(os.sched_getaffinity(0)), "machine": platform.machine(), "python": platform.python_version()}
        machine["load"] = os.getloadavg()
        RESULTS.mkdir(exist_ok=True)
        found = {"version": 2, "machine": machine, "rows": rows, "predicted": predicted}
        (RESULTS / "rtx_build.json").write_text(json.dumps(found, indent=1) + "\n")
        (RESULTS / "rtx_build.md").write_text(text)


if __name__ == "__main__":
    main()
