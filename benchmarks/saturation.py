"""INT8 on a CPU without VNNI: what saturating pair sums cost, and what two remedies cost.

    python benchmarks/saturation.py [--images 100] [--emulator "qemu-x86_64 -cpu Haswell"]

Without VNNI, U8S8 kernels add two products in 16 bits, which saturates in silence. The packaged models are quantized with
weights of full range, with the half of it that ONNX Runtime calls reduce_range, and with `pairs` (`toolkit.graph.weights`), in
which no two weights that meet in a pair sum can overflow. Every file runs on this CPU and, with `--emulator`, once more in a
process that sees a CPU without VNNI, with the very kernels that ONNX Runtime picks there. It prints signal to noise of the
logits against FP32 and writes benchmarks/results/saturation.json and saturation.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.markdown import Markdown

ROOT = Path(__file__).resolve().parent
MODELS = ("fashion-resnet18", "fashion-resnet50")
ROOMS = ("full", "half", "pairs")
WORKER = """
import sys, numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
batch = np.load(sys.argv[1])
for file in sys.argv[2:]:
    np.save(file + ".npy", ort.InferenceSession(file, options, providers=["CPUExecutionProvider"]).run(None, {"input": batch})[0])
"""


def graphs(name: str, folder: Path, count: int) -> tuple[Path, dict[str, Path]]:
    """Write the images and the model in FP32 and in INT8 with each kind of weights."""
    from toolkit.graph.qdq import quantize
    from toolkit.images.dataset import open_data
    from toolkit.onnxfile import serialize
    from toolkit.pipeline import prepare
    from toolkit.recipe import Recipe

    recipe = Recipe.load(ROOT.parent / "engines" / f"{name}-int8.toml")
    trip = prepare(recipe, proof=False)
    assert trip.ranges is not None
    assert recipe.accept.data is not None
    files = {"fp32": folder / f"{name}-fp32.onnx"}
    files["fp32"].write_bytes(serialize(trip.source.graph))
    for room in ROOMS:
        files[room] = folder / f"{name}-{room}.onnx"
        files[room].write_bytes(serialize(quantize(trip.graph, trip.ranges, recipe.precision, recipe.calibration, room=room)))
    images = folder / f"{name}.npy"
    np.save(images, np.concatenate(list(open_data(recipe.accept.data, recipe.preprocess, count).batches(count))))
    return images, files


def logits(images: Path, files: dict[str, Path], emulator: list[str]) -> dict[str, Any]:
    """What each file answers in a process of its own, under `emulator` where one is given."""
    command = [*emulator, sys.executable, "-c", WORKER, str(images), *map(str, files.values())]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=3600)
    return {room: np.load(f"{file}.npy") for room, file in files.items()}


def measure(name: str, images: Path, files: dict[str, Path], emulator: str) -> list[dict[str, Any]]:
    from toolkit.cpu import has_vnni
    from toolkit.harness.answers import snr

    here = logits(images, files, [])
    machines = {f"this CPU, {'with' if has_vnni() else 'without'} VNNI": here}
    if emulator:
        machines[f"without VNNI ({emulator})"] = logits(images, files, shlex.split(emulator))
    rows = []
    for machine, answers in machines.items():
        for room in ROOMS:
            agreement = float((answers[room].argmax(1) == here["fp32"].argmax(1)).mean())
            same = bool(np.array_equal(answers[room], here[room]))
            row = {"model": name, "weights": room, "cpu": machine, "agreement": agreement, "as_here": same}
            rows.append({**row, "snr": snr(here["fp32"], answers[room])})
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| model | weights | CPU | SNR of logits, dB | agreement | equal to this CPU's, bit for bit |"]
    lines.append("|---|---|---|---:|---:|---|")
    for row in rows:
        same = "yes" if row["as_here"] else "no"
        lines.append(f"| {row['model']} | {row['weights']} | {row['cpu']} | {row['snr']:.1f} | {row['agreement']:.1%} | {same} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    from toolkit.disk.files import write_atomically
    from toolkit.harness.environment import read_environment

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--emulator", default="", help='such as "qemu-x86_64 -cpu Haswell"')
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "saturation.json")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            rows += measure(name, *graphs(name, Path(folder), arguments.images), arguments.emulator)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    result = {"environment": msgspec.to_builtins(read_environment()), "images": arguments.images, "rows": rows}
    write_atomically(arguments.output, json.dumps(result, indent=1).encode() + b"\n")
    write_atomically(arguments.output.with_suffix(".md"), markdown(rows).encode())
    Console().print(Markdown(markdown(rows)))


if __name__ == "__main__":
    main()
