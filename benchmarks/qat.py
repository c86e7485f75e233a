"""How much of what calibration loses does quantization-aware fine-tuning bring back?

    python benchmarks/qat.py [--steps 200] [--bits 4,3] [--quick]

The packaged models with weights of few bits, one scale an output channel: once as calibrated, once fine-tuned on the packaged
training images. Both go the rest of the trip unchanged, from the written recipe to the typed INT8 graph in ONNX Runtime, where
all test images are counted. It prints a table and writes benchmarks/results/qat.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from toolkit.cli.progress import stages
from toolkit.disk.files import write_atomically
from toolkit.finetune.qat import finetune
from toolkit.graph.run import graph_runner
from toolkit.harness.environment import read_environment
from toolkit.images.dataset import open_data
from toolkit.pipeline import prepare, typed
from toolkit.recipe import Recipe
from toolkit.types import Classifier, Target

ROOT = Path(__file__).resolve().parent
MODELS = ("fashion-resnet18", "fashion-resnet50")


def top1(model: Classifier, recipe: Recipe, limit: int | None) -> float:
    """Top-1 in percent on the recipe's own test images."""
    assert recipe.accept.data is not None
    images = open_data(recipe.accept.data, recipe.preprocess, limit)
    answers = np.concatenate([model(batch).argmax(1) for batch in images.batches(50)])
    return 100.0 * float(np.mean(answers == images.labels))


def measure(name: str, bits: int, arguments: argparse.Namespace, stage: Any) -> dict[str, Any]:
    recipe = Recipe.load(ROOT.parent / "engines" / f"{name}-int8.toml")
    recipe = msgspec.structs.replace(recipe, precision=msgspec.structs.replace(recipe.precision, compute="fp32"))
    row: dict[str, Any] = {"model": name, "weight_bits": bits, "steps": arguments.steps, "seed": arguments.seed}
    row["fp32"] = top1(graph_runner(prepare(recipe, stage, proof=False).source.graph), recipe, arguments.images)
    for key, steps in (("calibrated", 0), ("fine_tuned", arguments.steps)):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            tuned = finetune(recipe, Path(folder), steps=steps, weight_bits=bits, seed=arguments.seed, stage=stage)
            row[f"{key}_seconds"] = time.perf_counter() - start
            graph = typed(prepare(Recipe.load(Path(folder) / f"{tuned.name}.toml"), stage, proof=False), Target("cpu"))
            row[key] = top1(graph_runner(graph), recipe, arguments.images)
    lost = row["fp32"] - row["calibrated"]
    row["recovered"] = (row["fine_tuned"] - row["calibrated"]) / lost if lost > 0 else None
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--bits", default="4,3")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--images", type=int, help="test images; absent: all 10,000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="ResNet-18, 10 steps, 500 test images: does it run?")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "results" / "qat.json")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.quick:
        arguments.models, arguments.bits, arguments.steps, arguments.images = MODELS[0], "4", 10, 500
    with stages() as stage:
        bits = [int(n) for n in arguments.bits.split(",")]
        rows = [measure(name, n, arguments, stage) for name in arguments.models.split(",") for n in bits]
    table = Table(title=f"Fine-tuning for {arguments.steps} steps, top-1 in percent")
    for column in ("model", "weight bits", "FP32", "calibrated", "fine-tuned", "recovered"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        share = "-" if row["recovered"] is None else f"{100 * row['recovered']:.0f} %"
        numbers = [f"{row[key]:.2f}" for key in ("fp32", "calibrated", "fine_tuned")]
        table.add_row(row["model"], str(row["weight_bits"]), *numbers, share)
    Console().print(table)
    result = {"version": 1, "environment": msgspec.to_builtins(read_environment()), "rows": rows}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
