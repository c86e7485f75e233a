"""What calibration costs beside inference alone: time and peak memory on a full-size ResNet-50, 224 x 224.

    python benchmarks/calibration.py [--images 128] [--rounds 3] [--memory 128,512] [--quick]
        [--tools toolkit,toolkit-auto] [--modelopt PYTHON] [--nncf PYTHON]

Each tool is a process of its own that waits for its turn; the tools take turns round after round, so that a slow minute of the
machine falls on all. A turn is the whole work, from the ONNX file to the ranges, and is compared with a turn of bare inference
of the same images in batches of 1. What a turn leaves behind is collected before the next one starts. Peak memory is the kernel's
high-water mark (VmHWM) of a fresh process that does it once. Model Optimizer and NNCF run in the Python of an environment of
theirs, where one is given. It prints a table and writes benchmarks/results/calibration.json with every sample.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import shuffled

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is loaded

SHAPE = (3, 224, 224)
POOL = 16
HERE = Path(__file__).resolve()
PEER = str(HERE.parent.parent / ".peers" / "openvino" / "bin" / "python")
RESULT = HERE.parent / "results" / "calibration.json"
OURS = ("inference", "toolkit", "toolkit-nvidia")
AUTO, HELD = "toolkit-auto", 32
ONNX_RUNTIME = {"onnxruntime-minmax": "MinMax", "onnxruntime-entropy": "Entropy", "onnxruntime-percentile": "Percentile"}
HEAVY = ("onnxruntime-entropy", "onnxruntime-percentile")  # they keep every activation, about 0.11 GB an image
WORDS = {
    "inference": "inference alone",
    "toolkit": "toolkit, every method (CPU's and NVIDIA's tensors)",
    "toolkit-nvidia": "toolkit, every method (NVIDIA's tensors)",
    AUTO: "toolkit, `auto`: ranges, and the settings of INT8 chosen",
    "onnxruntime-minmax": "ONNX Runtime MinMax",
    "onnxruntime-entropy": "ONNX Runtime Entropy",
    "onnxruntime-percentile": "ONNX Runtime Percentile",
    "modelopt": "Model Optimizer entropy, whole run",
    "nncf": "NNCF, whole run",
}


def pictures(count: int) -> Any:
    """`count` images [1, 3, 224, 224] with the falling spectrum of photographs, made of a pool of 16; seeded."""
    random = np.random.default_rng(0)
    pool = []
    for _ in range(POOL):
        image = np.zeros(SHAPE, np.float32)
        for cells in (4, 16, 56, 224):
            noise = random.standard_normal((3, cells, cells)).astype(np.float32)
            image += np.kron(noise, np.ones((224 // cells, 224 // cells), np.float32)) / 2
        pool.append(image[None])
    return (pool[i % POOL] for i in range(count))


def inference(model: Path, count: int, threads: int) -> None:
    from toolkit.backends.onnxruntime.backend import session
    from toolkit.types import Target

    live = session(str(model), Target("cpu"), {"threads": threads, "spin": False})
    for image in pictures(count):
        live.run(None, {"input": image})


def toolkit(model: Path, count: int, threads: int, nvidia: bool) -> None:
    import onnx_ir as ir

    from toolkit.calibration import collect
    from toolkit.graph.edges import origin
    from toolkit.graph.scheme_cpu import watched
    from toolkit.graph.scheme_tensorrt import tensorrt_edges

    graph = ir.load(model)
    tensors = tuple(origin(edge.value).name or "" for edge in tensorrt_edges(graph, ())) if nvidia else watched(graph)
    collect(graph, pictures(count), tensors, threads=threads).encode()


def auto(model: Path, count: int, threads: int) -> None:
    """What `method = "auto"` does with everything open, from the FP32 graph to the choice."""
    from itertools import islice

    import onnx_ir as ir

    from toolkit.calibration import Ranges, Tally, collect, origin_of
    from toolkit.graph.channels import IMAGES
    from toolkit.graph.scheme_cpu import watched
    from toolkit.graph.select import SHARE, Settings, select
    from toolkit.recipe import Calibration, Precision

    tallies: dict[str, Tally] = {}  # as `settle.calibrate` has them

    def ranges(graph: ir.Model, whole: bool) -> Ranges:
        origin = origin_of(graph, watched(graph))
        tally = tallies.setdefault(origin.weights, Tally())
        images = islice(pictures(count if whole else SHARE), tally.images, None)
        return collect(graph, images, watched(graph), origin=origin, threads=threads, tally=tally)

    few, held = list(pictures(min(IMAGES, count))), np.concatenate(list(islice(pictures(count + HELD), count, None)))
    settings = Settings(Precision(int8=True), Calibration())
    select(ir.load(model), settings, few, held, ranges, scheme="cpu", room="pairs")


def onnx_runtime(model: Path, count: int, threads: int, method: str) -> None:
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = pictures(count)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.images, None)
            return None if image is None else {"input": image}

    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            str(model),
            augmented_model_path=f"{folder}/augmented.onnx",
            calibrate_method=getattr(CalibrationMethod, method),
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        calibrator.infer_session = onnxruntime.InferenceSession(
            f"{folder}/augmented.onnx", options, providers=["CPUExecutionProvider"]
        )
        calibrator.collect_data(Reader())
        calibrator.compute_data()


def modelopt(model: Path, count: int, threads: int) -> None:
    from modelopt.onnx.quantization import quantize

    with tempfile.TemporaryDirectory() as folder:
        images = np.concatenate(list(pictures(count)))
        quantize(str(model), calibration_data={"input": images}, calibration_method="entropy", output_path=f"{folder}/q.onnx")


def nncf(model: Path, count: int, threads: int) -> None:
    import nncf as library
    import openvino

    dataset = library.Dataset(list(pictures(count)))
    library.quantize(openvino.Core().read_model(model), dataset, subset_size=count)


def work(tool: str, model: Path, count: int, threads: int) -> None:
    """One turn of one tool."""
    if tool == "inference":
        inference(model, count, threads)
    elif tool == AUTO:
        auto(model, count, threads)
    elif tool in OURS:
        toolkit(model, count, threads, nvidia=tool.endswith("nvidia"))
    elif tool in ONNX_RUNTIME:
        onnx_runtime(model, count, threads, ONNX_RUNTIME[tool])
    else:
        {"modelopt": modelopt, "nncf": nncf}[tool](model, count, threads)


def peak() -> float:
    """This process's high-water mark of resident memory, in GB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def serve(tool: str, model: Path, count: int, threads: int) -> None:
    """Do a turn for each line on standard input and answer with its seconds and the peak memory so far."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the tools print must not mix with the answers
    for _ in sys.stdin:
        gc.collect()  # a graph is a web of references: it would stay, and each turn would ask the system for fresh memory
        start = time.perf_counter()
        work(tool, model, count, threads)
        print(json.dumps({"seconds": time.perf_counter() - start, "peak_gb": peak()}), file=answers, flush=True)


class Worker:
    """A tool's process."""

    def __init__(self, tool: str, python: str, model: Path, count: int, threads: int) -> None:
        self.tool, self.count, self.seconds = tool, count, list[float]()
        command = [python, str(HERE), "--serve", tool, "--model", str(model), "--images", str(count), "--threads", str(threads)]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True)

    def turn(self, *, keep: bool = True) -> dict[str, float]:
        """One turn: {seconds, peak_gb}. Raises SystemExit with the tool's last words where it died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise SystemExit(f"{self.tool} failed: {self._log.read()[-2000:]}")
        answer: dict[str, float] = json.loads(line)
        if keep:
            self.seconds.append(answer["seconds"])
        return answer

    def close(self) -> None:
        self._process.communicate()
        self._log.close()


def export_model(folder: Path) -> Path:
    """ResNet-50 with seeded weights, as the toolkit exports it."""
    from toolkit.graph.export import export
    from toolkit.onnxfile import serialize
    from toolkit.recipe import Preprocess, Reference
    from toolkit.reference.weights import load_reference

    path = folder / "resnet50.onnx"
    path.write_bytes(serialize(export(load_reference(Reference(arch="resnet50", weights="random:0")), Preprocess())))
    return path


def measure_time(tools: dict[str, str], model: Path, arguments: argparse.Namespace, say: Any) -> list[dict[str, Any]]:
    """Rounds of turns; each tool's row has its samples and, of each round, the ratio to inference per image."""
    counts = {tool: min(arguments.images, arguments.heavy_images) if tool in HEAVY else arguments.images for tool in tools}
    workers = [Worker(tool, python, model, counts[tool], arguments.threads) for tool, python in tools.items()]
    for worker in workers:
        say(f"warm-up: {worker.tool}")
        worker.turn(keep=False)
    by_name = {worker.tool: worker for worker in workers}
    for turn, tool in shuffled(list(by_name), arguments.rounds):
        say(f"round {turn + 1} of {arguments.rounds}: {tool}")
        by_name[tool].turn()
    for worker in workers:
        worker.close()
    base = next(w for w in workers if w.tool == "inference")
    per_image = [s / base.count for s in base.seconds]
    return [
        {
            "tool": w.tool,
            "images": w.count,
            "seconds": w.seconds,
            "ratios": [s / w.count / alone for s, alone in zip(w.seconds, per_image, strict=True)],
        }
        for w in workers
    ]


def measure_memory(tools: dict[str, str], model: Path, arguments: argparse.Namespace, say: Any) -> list[dict[str, Any]]:
    """Each tool at each number of images, in a fresh process; the heavy ones only at the number they were timed with."""
    rows = []
    for tool, python in tools.items():
        counts = [min(arguments.images, arguments.heavy_images)] if tool not in OURS else arguments.memory
        for count in counts:
            say(f"memory: {tool}, {count} images")
            worker = Worker(tool, python, model, count, arguments.threads)
            rows.append({"tool": tool, "images": count, "peak_gb": worker.turn()["peak_gb"]})
            worker.close()
    return rows


def table(result: dict[str, Any]) -> Any:
    from rich.table import Table

    view = Table(title=f"Calibration of ResNet-50, 224 x 224, {result['threads']} threads, {result['environment']['cpu']}")
    for column in ("tool", "images", "seconds", "x inference", "peak GB (images)"):
        view.add_column(column, justify="left" if column == "tool" else "right")
    for row in result["time"]:
        memory = [m for m in result["memory"] if m["tool"] == row["tool"]]
        view.add_row(
            WORDS[row["tool"]],
            str(row["images"]),
            f"{statistics.median(row['seconds']):.1f}",
            f"{statistics.median(row['ratios']):.2f} ({min(row['ratios']):.2f} to {max(row['ratios']):.2f})",
            "  ".join(f"{m['peak_gb']:.2f} ({m['images']})" for m in memory),
        )
    return view


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--heavy-images", type=int, default=32, help="for the calibrators that keep every activation")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory", default="128,512", help="numbers of images at which peak memory is taken")
    parser.add_argument("--tools", help="only these, and inference; `toolkit,nncf`")
    parser.add_argument("--quick", action="store_true", help="4 images, 1 round: does it run?")
    parser.add_argument("--modelopt", metavar="PYTHON", help="a Python that has nvidia-modelopt[onnx]")
    made = PEER if os.path.exists(PEER) else None
    parser.add_argument("--nncf", metavar="PYTHON", default=made, help="a Python that has nncf and openvino; peers.py makes one")
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.memory = [int(n) for n in arguments.memory.split(",")]
    if arguments.quick:
        arguments.images, arguments.heavy_images, arguments.rounds, arguments.memory = 4, 2, 1, [4, 8]
    return arguments


def main() -> None:
    arguments = parse()
    if arguments.serve:
        serve(arguments.serve, arguments.model, arguments.images, arguments.threads)
    else:
        benchmark(arguments)


def benchmark(arguments: argparse.Namespace) -> None:
    """Measure, print, write."""
    import msgspec
    from rich.console import Console

    from toolkit.disk.files import write_atomically
    from toolkit.harness.environment import read_environment

    console = Console()
    tools = dict.fromkeys((*OURS, AUTO, *ONNX_RUNTIME), sys.executable)
    for name in ("modelopt", "nncf"):
        if python := getattr(arguments, name):
            tools[name] = python
        else:
            console.print(f"{WORDS[name]}: left out; give its environment with --{name} PYTHON")
    if arguments.tools:
        wanted = {"inference", *arguments.tools.split(",")}
        tools = {tool: python for tool, python in tools.items() if tool in wanted}
    with tempfile.TemporaryDirectory() as folder, console.status("export") as status:
        model = export_model(Path(folder))
        result = {
            "version": 1,
            "threads": arguments.threads,
            "environment": msgspec.to_builtins(read_environment()),
            "time": measure_time(tools, model, arguments, status.update),
            "memory": measure_memory(tools, model, arguments, status.update),
        }
    console.print(table(result))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, (json.dumps(result, indent=1) + "\n").encode())
    console.print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
