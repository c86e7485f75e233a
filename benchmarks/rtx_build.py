"""How long TensorRT-RTX takes to build for a GPU that is not here, how much memory, and whether it builds the same bytes again.

    .venv/bin/python benchmarks/rtx_build.py [--repeats 3] [--sm 86 --sm 89 --sm 120] [--graph "resnet50 int8+fp16"] [--quick]

Each build runs in a process of its own that holds just the graph, as `toolkit build` hands it over; seconds are wall time of
`compile`, memory is the larger of its peak (VmHWM) and its child's. Writes benchmarks/results/rtx_build.json and .md.
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
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
LIMIT_SECONDS, LIMIT_MIB = 3.0, 1536.0  # asked of ResNet-50 in INT8 on 2 cores

CHILD = """
import hashlib, json, pathlib, resource, sys, tempfile, time
import onnx_ir
from toolkit.backends.tensorrt import backend as tensorrt
from toolkit.recipe import Build
from toolkit.types import Target
graph = onnx_ir.load(sys.argv[1])
folder = pathlib.Path(tempfile.mkdtemp(dir=sys.argv[3]))
start = time.perf_counter()
made = tensorrt.compile(graph, Build(batch=(1, 8, 32)), Target("rtx", int(sys.argv[2])), folder)
seconds = time.perf_counter() - start
plan = (folder / made.file).read_bytes()
layers = json.loads((folder / tensorrt.LAYERS).read_text())["layers"]
status = pathlib.Path("/proc/self/status").read_text()
peaks = [int(status.split("VmHWM:")[1].split()[0]) / 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]
print(json.dumps({
    "seconds": seconds, "peak_mib": max(peaks), "bytes": len(plan), "sha256": hashlib.sha256(plan).hexdigest(),
    "kernels": len(layers), "generated": sum(row["type"] == "kgen" for row in layers),
    "int8": sum("Int8" in row["inputs"][:1] and row["type"] != "kgen" for row in layers), "notes": made.notes,
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
        quantized = quantize(plain, ranges, Precision(int8=True), Calibration(method="minmax"), scheme="tensorrt")
        for precision, graph in (("fp32", plain), ("fp16", to_fp16(plain)), ("int8+fp16", to_fp16(quantized))):
            path = folder / f"{arch}-{precision}.onnx"
            onnx_ir.save(graph, path)
            found[f"{arch} {precision}"] = path
    return found


def build(path: Path, sm: int, folder: Path) -> dict[str, object]:
    """One build in a process of its own."""
    command = [sys.executable, "-c", CHILD, str(path), str(sm), str(folder)]
    with tempfile.TemporaryDirectory(dir=folder) as empty:  # no plan is taken from an earlier build
        environment = {**os.environ, "XDG_CACHE_HOME": empty}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    if done.returncode:
        sys.exit(f"{path.name} for sm{sm}: {done.stderr.strip().splitlines()[-1]}")
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown, and whether the limits were met."""
    lines = ["| graph | SM | median s | peak MiB | engine MB | kernels | of them generated | INT8 layers | builds that differ |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|---|")
    for row in rows:
        runs = row["runs"]
        seconds, peak, first = statistics.median(r["seconds"] for r in runs), max(r["peak_mib"] for r in runs), runs[0]
        [(_, most)] = Counter(r["sha256"] for r in runs).most_common(1)
        lines.append(
            f"| {row['graph']} | {row['sm']} | {seconds:.2f} | {peak:.0f} | {first['bytes'] / 1e6:.1f} | {first['kernels']} "
            f"| {first['generated']} | {first['int8']} | {len(runs) - most} of {len(runs)} |"
        )
    hard = [r for row in rows if row["graph"] == "resnet50 int8+fp16" for r in row["runs"]]
    if hard:
        worst = max(statistics.median(r["seconds"] for r in row["runs"]) for row in rows if row["graph"] == "resnet50 int8+fp16")
        peak = max(r["peak_mib"] for r in hard)
        lines += ["", f"ResNet-50 INT8: {worst:.2f} s an SM (asked: {LIMIT_SECONDS}), {peak:.0f} MiB (asked: {LIMIT_MIB:.0f})."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sm", type=int, action="append")
    parser.add_argument("--graph", help="this one only, and no files written")
    parser.add_argument("--quick", action="store_true", help="ResNet-18 only, and no files written")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for graph, path in graphs(folder, options.quick).items():
            if options.graph not in (None, graph):
                continue
            for sm in options.sm or (86, 89, 120):
                rows.append({"graph": graph, "sm": sm, "runs": [build(path, sm, folder) for _ in range(options.repeats)]})
                print(f"{graph} sm{sm}: {[round(r['seconds'], 2) for r in rows[-1]['runs']]}", file=sys.stderr)
    text = table(rows)
    print(text)
    if not (options.quick or options.graph):
        machine = {"cores": len(os.sched_getaffinity(0)), "machine": platform.machine(), "python": platform.python_version()}
        machine["load"] = os.getloadavg()
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "rtx_build.json").write_text(json.dumps({"version": 1, "machine": machine, "rows": rows}, indent=1) + "\n")
        (RESULTS / "rtx_build.md").write_text(text)


if __name__ == "__main__":
    main()
