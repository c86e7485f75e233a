"""What the toolkit itself costs an app, beside the library that computes. One command: python benchmarks/host_cost.py

Three figures, each from interleaved blocks of many calls, kept raw in benchmarks/results/host_cost.json:
- runner(batch) over a bare session.run on a tiny ONNX Runtime model;
- a TensorRT call at batch 1, on host memory with a played library (no GPU, nothing checked, nothing recorded);
- importing toolkit, and importing what runs an engine, beyond numpy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table
from side_by_side import block, side_by_side

from toolkit.backends.onnxruntime import backend as backend
from toolkit.disk.files import write_atomically
from toolkit.harness.environment import read_environment
from toolkit.manifest import Manifest, Profile
from toolkit.recipe import Preprocess
from toolkit.runtime import Runner
from toolkit.runtime.tensorrt import TensorRTExecutor
from toolkit.testing.double import library
from toolkit.testing.host import HostDevice
from toolkit.testing.played import Network
from toolkit.types import Target, TensorSpec

ROOT = Path(__file__).resolve().parent.parent
RECORDING = ROOT / "toolkit" / "testing" / "recordings" / "tensorrt-11.4.json"
X = TensorSpec(name="x", dtype="float32", shape=("N", 4))
LIMITS = {"ONNX Runtime: runner(batch) over session.run": 15.0, "TensorRT: runner(batch), played": 20.0, "import toolkit": 100e3}


def manifest(target: str, versions: dict[str, str]) -> Manifest:
    return Manifest(
        name="tiny",
        target=target,
        file="-",
        precision="fp32",
        inputs=(X,),
        outputs=(msgspec.structs.replace(X, name="y"),),
        profiles=(Profile(min=1, opt=1, max=8),),
        preprocess=Preprocess(),
        versions=versions,
    )


def onnxruntime_calls(batch: np.ndarray) -> dict[str, Callable[[], object]]:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "tiny", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    live = backend.session(model, Target.parse("cpu"), {"threads": 1})
    runner = Runner(manifest("cpu", {}), backend.SessionExecutor(live, "x", "y"))
    return {"session.run": lambda: live.run(["y"], {"x": batch}), "runner(batch)": lambda: runner(batch)}


def tensorrt_calls(batch: np.ndarray) -> dict[str, Callable[[], object]]:
    device, recording = HostDevice(checked=False), json.loads(RECORDING.read_text())
    answer = {"y": np.zeros((1, 4), np.float32)}
    network = Network((X,), (msgspec.structs.replace(X, name="y"),), ((1, 1, 8),), lambda arrays: answer)
    trt = library("tensorrt", recording, device, {b"": network})
    made = manifest("tensorrt", {"tensorrt": trt.__version__})
    runner = Runner(made, TensorRTExecutor(trt, device, b"", made, logger=trt.ILogger()))
    for _ in range(3):  # plain run, capture, graph
        runner(batch)
    return {"runner(batch), played": lambda: runner(batch)}


def measure(calls: dict[str, Callable[[], object]], blocks: int, repeats: int) -> dict[str, list[int]]:
    """Nanoseconds a block of `repeats` calls took, per call; blocks of all calls in shuffled rounds."""
    return side_by_side({name: partial(block, call, repeats) for name, call in calls.items()}, blocks, warmup=0)


IMPORTS = {
    "import toolkit": "import toolkit",
    "import toolkit; toolkit.load": "import toolkit; toolkit.load",
}


def measure_imports(rounds: int) -> dict[str, list[int]]:
    """Nanoseconds each statement takes in a fresh process that has numpy already."""
    return side_by_side({name: partial(_import, statement) for name, statement in IMPORTS.items()}, rounds, warmup=0)


def _import(statement: str) -> int:
    code = f"import numpy, time; t = time.perf_counter_ns(); {statement}; print(time.perf_counter_ns() - t)"
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


Samples = dict[str, list[int]]


def figures(onnxruntime: Samples, tensorrt: Samples, imports: Samples, repeats: int) -> dict[str, float]:
    """Microseconds. The difference is that of neighbors in a round, which a change of the machine's speed moves alike."""
    over = np.subtract(onnxruntime["runner(batch)"], onnxruntime["session.run"])
    rows = {"ONNX Runtime: runner(batch) over session.run": float(np.median(over)) / repeats / 1e3}
    rows["TensorRT: runner(batch), played"] = float(np.median(tensorrt["runner(batch), played"])) / repeats / 1e3
    rows["ONNX Runtime: session.run alone"] = float(np.median(onnxruntime["session.run"])) / repeats / 1e3
    return rows | {name: float(np.median(values)) / 1e3 for name, values in imports.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=100, help="calls a block")
    parser.add_argument("--imports", type=int, default=15, help="fresh processes for each import")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "host_cost.json")
    options = parser.parse_args()
    batch = np.zeros((1, 4), np.float32)
    onnxruntime = measure(onnxruntime_calls(batch), options.blocks, options.repeats)
    tensorrt = measure(tensorrt_calls(batch), options.blocks, options.repeats)
    imports = measure_imports(options.imports)
    rows = figures(onnxruntime, tensorrt, imports, options.repeats)
    table = Table("cost, median", "µs", "at most", title="What the toolkit costs an app")
    for name, value in rows.items():
        table.add_row(name, f"{value:,.1f}", f"{LIMITS[name]:,.0f}" if name in LIMITS else "")
    console = Console(width=100)
    console.print(table)
    raw = {"version": 1, "environment": msgspec.to_builtins(read_environment()), "repeats": options.repeats, "unit": "ns a block"}
    raw["samples"] = {"onnxruntime": onnxruntime, "tensorrt": tensorrt, "imports": imports}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.output, msgspec.json.encode(raw) + b"\n")
    console.print(f"raw samples: {options.output}")


if __name__ == "__main__":
    main()
