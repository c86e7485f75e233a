"""INT8 by four tools, on the packaged models as trained and on hostile weights.

    python benchmarks/quantizers.py [--images 10000] [--calibration 256]

The toolkit, ONNX Runtime, NVIDIA's Model Optimizer and NNCF quantize the same FP32 graph with the same images, each peer in an
environment of its own that this script makes under .peers/. Every file then answers all test images on ONNX Runtime's CPU, its
speed is measured in shuffled rounds, and TensorRT-RTX's parser is asked whether it takes the file. The toolkit makes one file a
target; both are listed. A tool that fails, or cannot be installed, stands in the table with the reason. It prints the table and
writes benchmarks/results/quantizers.json and quantizers.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx_ir as ir
from needed import research
from rich.console import Console
from rich.markdown import Markdown
from safetensors.torch import save_file

from toolkit import cpu
from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.backends.tensorrt import backend as tensorrt
from toolkit.disk.files import write_atomically
from toolkit.errors import ToolkitError
from toolkit.harness.accuracy import compare_accuracy
from toolkit.harness.answers import snr
from toolkit.harness.environment import read_environment
from toolkit.harness.lane import Contender
from toolkit.harness.latency import Sampling, measure_latency
from toolkit.images.dataset import PACKAGED, open_data
from toolkit.onnxfile import serialize
from toolkit.pipeline import Trip, prepare
from toolkit.recipe import Build, Recipe
from toolkit.reference.weights import read_weights
from toolkit.types import Array, Float, Target

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"
PEERS = {"modelopt": ["nvidia-modelopt[onnx]"], "nncf": ["nncf", "onnx", "onnxruntime"]}
MODELS = ("fashion-resnet18", "fashion-resnet50")
WEIGHTS = ("as trained", "streams")
COLUMNS = ("model", "weights", "tool", "top-1", "agrees", "SNR dB", "seconds", "peak MiB", "batch 1 ms", "TensorRT-RTX", "note")


class File(NamedTuple):
    """What a tool made; `path` is None where it failed, and `note` says why."""

    tool: str
    path: Path | None
    seconds: float | None = None
    peak_mib: float | None = None
    note: str = ""


def environment(tool: str) -> str:
    """The Python that has `tool`; made on first use. Raises CalledProcessError."""
    folder = ROOT / ".peers" / tool
    python = folder / "bin/python"
    if not (folder / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEERS[tool]], check=True, capture_output=True, text=True)
        (folder / ".ready").touch()
    return str(python)


def by_peer(tool: str, source: Path, images: Path, folder: Path) -> File:
    """The tool's file, made in its own process."""
    target = folder / f"{tool}.onnx"
    try:
        python = sys.executable if tool.startswith("onnxruntime") else environment(tool.partition("-")[0])
        command = [python, ROOT / "benchmarks/quantizer_worker.py", tool, source, images, target]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, cwd=folder)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout or "").strip().splitlines()[-1:] or ["no word"]
        return File(tool, None, note=f"failed: {last[0][:90]}")
    except subprocess.TimeoutExpired:
        return File(tool, None, note="gave up after 600 s")
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return File(tool, target, said["seconds"], said["peak_mib"])


def by_toolkit(recipe: Recipe, folder: Path) -> tuple[list[File], Trip]:
    """A file for each target, in processes of their own so that their memory is told apart from this one's."""
    code = (
        "import sys, time, json, msgspec; from pathlib import Path; from toolkit.recipe import Recipe;"
        "from toolkit.types import Target; from toolkit.pipeline import prepare, typed; from toolkit.onnxfile import serialize;"
        "r = msgspec.json.decode(sys.argv[1], type=Recipe); start = time.perf_counter(); t = prepare(r, proof=False);"
        "Path(sys.argv[3]).write_bytes(serialize(typed(t, Target.parse(sys.argv[2]))));"
        "status = Path('/proc/self/status').read_text().splitlines();"
        "peak = next(int(line.split()[1]) for line in status if line.startswith('VmHWM'));"
        "print(json.dumps([time.perf_counter() - start, peak / 1024]))"
    )
    files = []
    for target in ("cpu", "rtx:sm89"):
        path = folder / f"toolkit-{target.replace(':', '-')}.onnx"
        with tempfile.TemporaryDirectory() as cache:  # else the second target would find the first one's calibration
            command = [sys.executable, "-c", code, msgspec.json.encode(recipe).decode(), target, path]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=_environ(cache))
        seconds, peak = json.loads(done.stdout.strip().splitlines()[-1])
        files.append(File(f"toolkit for {target}", path, seconds, peak, "with PyTorch's export"))
    return files, prepare(recipe, proof=False)


def _environ(cache: str) -> dict[str, str]:
    import os

    return {**os.environ, "XDG_CACHE_HOME": cache}


def live(path: Path) -> Any:
    """float32 batch -> logits; the file as it is."""
    session = onnxruntime.session(str(path), Target("cpu"), {"threads": cpu.cores()})
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def taken_by_rtx(path: Path, folder: Path) -> str:
    """yes, or the parser's reason."""
    try:
        tensorrt.compile(ir.load(path), Build(target="rtx:sm89"), Target("rtx", 89), folder)
    except ToolkitError as error:
        return f"no: {error.what[:90]}"
    return "yes"


def row(file: File, images: Array, labels: Array, truth: Float, p50: dict[str, float], folder: Path) -> dict[str, Any]:
    """One line of the table."""
    empty = {"tool": file.tool, "seconds": file.seconds, "peak MiB": file.peak_mib, "note": file.note}
    if file.path is None:
        return empty
    run = live(file.path)
    answers = np.concatenate([run(images[i : i + 32]) for i in range(0, len(images), 32)]).astype(np.float32)
    verdict = compare_accuracy(truth, answers, labels, name=file.tool)
    assert verdict.top1 is not None
    found = {"top-1": 100 * verdict.top1[1], "agrees": 100 * verdict.agreement, "SNR dB": snr(truth, answers)}
    found["batch 1 ms"] = 1e3 * p50[file.tool]
    return empty | found | {"TensorRT-RTX": taken_by_rtx(file.path, folder), "verdict": verdict.text}


def case(model: str, weights: str, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All tools on one model."""
    recipe = Recipe.load(ROOT / f"engines/{model}-int8.toml")
    if weights != "as trained":
        state = research("hostile").ruin(read_weights(PACKAGED / f"{model}.safetensors").tensors, weights, decades=3.2, seed=1)
        save_file(state, folder / "hostile.safetensors")
        reference = msgspec.structs.replace(recipe.reference, weights=str(folder / "hostile.safetensors"), stem="small")
        recipe = msgspec.structs.replace(recipe, reference=reference)
    calibration = msgspec.structs.replace(recipe.calibration, images=arguments.calibration)
    recipe = msgspec.structs.replace(recipe, calibration=calibration)
    files, trip = by_toolkit(recipe, folder)
    plain, images = folder / "fp32.onnx", folder / "images.npy"
    plain.write_bytes(serialize(trip.source.graph))
    data = open_data(recipe.calibration.data, recipe.preprocess, arguments.calibration)
    np.save(images, next(data.batches(arguments.calibration)))
    files += [by_peer(tool, plain, images, folder) for tool in ("onnxruntime", "modelopt", "nncf")]
    test = open_data("packaged:fashion-test", recipe.preprocess, arguments.images)
    pictures = next(test.batches(test.count))
    files.insert(0, File("FP32", plain))
    made = {file.tool: live(file.path) for file in files if file.path is not None}
    one = pictures[:1]
    entries = [Contender(tool, 1, lambda run=run: run(one), "", "cpu") for tool, run in made.items()]  # type: ignore[misc]
    timed = {m.engine: m for m in measure_latency(entries, Sampling(seconds=arguments.seconds, warmup=2, least_blocks=8))}
    p50 = {tool: float(np.median(m.seconds)) for tool, m in timed.items()}
    truth = np.concatenate([made["FP32"](pictures[i : i + 32]) for i in range(0, len(pictures), 32)])
    assert test.labels is not None
    return [
        {"model": model, "weights": weights} | row(file, pictures, test.labels, truth, p50, folder) for file in files
    ]


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "|".join("---" for _ in COLUMNS) + "|"]
    for found in rows:
        cells = [found.get(column) for column in COLUMNS]
        digits = {"top-1": 2, "agrees": 2, "SNR dB": 1, "seconds": 1, "peak MiB": 0, "batch 1 ms": 3}
        pairs = zip(COLUMNS, cells, strict=True)
        shown = [f"{cell:.{digits[column]}f}" if isinstance(cell, float) else str(cell or "") for column, cell in pairs]
        lines.append("| " + " | ".join(text.replace("|", "/") for text in shown) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="test images")
    parser.add_argument("--calibration", type=int, default=256, help="calibration images")
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing a model")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    started = time.time()
    for model in MODELS:
        for weights in WEIGHTS:
            with tempfile.TemporaryDirectory() as folder:
                rows += case(model, weights, arguments, Path(folder))
            record = {"environment": msgspec.to_builtins(read_environment()), "settings": vars(arguments), "rows": rows}
            write_atomically(RESULTS / "quantizers.json", json.dumps(record, indent=1).encode() + b"\n")
            write_atomically(RESULTS / "quantizers.md", markdown(rows).encode())
    Console(width=200).print(Markdown(markdown(rows)))
    print(f"{time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
