"""What each precision, and each place for its Q/DQ pairs, costs in accuracy: the packaged models, no GPU needed.

    python benchmarks/precisions.py [--images 3000]

Each row is one typed graph as a build makes it, run on ONNX Runtime's CPU with the rounding of its target (`tensorrt`: every
FP16 or BF16 tensor rounded). What `auto` would choose is fixed to the defaults, so that rows differ in what they name alone.
Prints SNR of the logits and agreement against the FP32 graph, and top-1, and writes benchmarks/results/precisions.json and .md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np
from rich.console import Console
from rich.markdown import Markdown

from toolkit.disk.files import write_atomically
from toolkit.graph.run import graph_runner, predicting_runner
from toolkit.harness.answers import snr
from toolkit.harness.environment import read_environment
from toolkit.images.dataset import open_data
from toolkit.pipeline import prepare, typed
from toolkit.recipe import Recipe
from toolkit.types import Target

ROOT = Path(__file__).resolve().parent
MODELS = ("fashion-resnet18", "fashion-resnet50")
FIXED = {"equalize": "streams", "weights": "absmax", "rounding": "compensated", "bias_correction": True}
INT8, FP8 = {"compute": "fp16", "int8": True}, {"compute": "fp16", "int8": False, "fp8": True}
VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # target, keys of [precision], keys of [build]
    "INT8, cpu = any": ("cpu", INT8, {"cpu": "any"}),
    "INT8, cpu = vnni": ("cpu", INT8, {"cpu": "vnni"}),
    "INT8, no bias correction": ("cpu", {**INT8, "bias_correction": False}, {"cpu": "any"}),
    "INT8, nearest": ("cpu", {**INT8, "rounding": "nearest"}, {"cpu": "any"}),
    "INT8, nearest, no bias correction": ("cpu", {**INT8, "rounding": "nearest", "bias_correction": False}, {"cpu": "any"}),
    "INT8, weights = mse": ("cpu", {**INT8, "weights": "mse"}, {"cpu": "any"}),
    "INT8, nearest, weights = mse": ("cpu", {**INT8, "rounding": "nearest", "weights": "mse"}, {"cpu": "any"}),
    "FP16": ("tensorrt", {"compute": "fp16", "int8": False}, {}),
    "BF16": ("tensorrt", {"compute": "bf16", "int8": False}, {}),
    "INT8": ("tensorrt", INT8, {}),
    "INT8, pools too": ("tensorrt", {**INT8, "pools": True}, {}),
    "INT8, without the last layer": ("tensorrt", {**INT8, "keep": ("fc",)}, {}),
    "FP8": ("tensorrt", FP8, {}),
    "FP8, the first layer too": ("tensorrt", FP8, {}),
    "FP8, without the last layer": ("tensorrt", {**FP8, "keep": ("fc",)}, {}),
}


def measure(name: str, count: int) -> Iterator[dict[str, Any]]:
    """A row for each variant of one model."""
    base = Recipe.load(ROOT.parent / "engines" / f"{name}-int8.toml")
    assert base.accept.data is not None
    images = open_data(base.accept.data, base.preprocess, count)
    batch, labels = np.concatenate(list(images.batches(500))), np.asarray(images.labels)
    truth = None
    for variant, (target, precision, build) in VARIANTS.items():
        recipe = msgspec.structs.replace(
            base,
            precision=msgspec.structs.replace(base.precision, **{**FIXED, **precision}),
            build=msgspec.structs.replace(base.build, target=target, **build),
            calibration=msgspec.structs.replace(base.calibration, method="mse"),
        )
        trip = prepare(recipe, proof=False)
        with mock.patch("toolkit.graph.qdq.first_layers", return_value=()) if "first layer too" in variant else nullcontext():
            graph = typed(trip, Target.parse(target))
        truth = graph_runner(trip.source.graph)(batch) if truth is None else truth
        answers = predicting_runner(graph, Target.parse(target))(batch)
        yield {
            "model": name,
            "target": target,
            "variant": variant,
            "snr": snr(truth, answers),
            "agreement": float((answers.argmax(1) == truth.argmax(1)).mean()),
            "top1": float((answers.argmax(1) == labels).mean()),
            "fp32": float((truth.argmax(1) == labels).mean()),
        }


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| model | target | precision | SNR of logits, dB | agreement with FP32 | top-1 | top-1 of FP32 |"]
    lines.append("|---|---|---|---:|---:|---:|---:|")
    for row in rows:
        shares = f"{row['agreement']:.2%} | {row['top1']:.2%} | {row['fp32']:.2%}"
        lines.append(f"| {row['model']} | {row['target']} | {row['variant']} | {row['snr']:.1f} | {shares} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "precisions.json")
    arguments = parser.parse_args()
    rows = [row for name in MODELS for row in measure(name, arguments.images)]
    result = {"environment": msgspec.to_builtins(read_environment()), "images": arguments.images, "rows": rows}
    write_atomically(arguments.output, json.dumps(result, indent=1).encode() + b"\n")
    write_atomically(arguments.output.with_suffix(".md"), markdown(rows).encode())
    Console(width=140).print(Markdown(markdown(rows)))


if __name__ == "__main__":
    main()
