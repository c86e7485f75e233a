"""How far onnx's reference evaluator lies from a prediction and from its envelope: python benchmarks/envelope.py [--images 64]

The evaluator computes an FP16 graph in half precision throughout, and adds up in an order of its own: a backend that is not ours.
Two networks: the packaged ResNet-18, and a thin one of random weights, whose answers lie close to one another. Prints a table and
writes benchmarks/results/envelope.json and envelope.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from rich.console import Console
from rich.markdown import Markdown

from toolkit import pipeline
from toolkit.disk.files import write_atomically
from toolkit.graph.envelope import roundings
from toolkit.harness.answers import snr
from toolkit.harness.environment import read_environment
from toolkit.images.dataset import open_data
from toolkit.recipe import Recipe
from toolkit.types import Target

ROOT = Path(__file__).resolve().parent
RECIPE = ROOT.parent / "engines" / "fashion-resnet18-fp16.toml"
NETWORKS: dict[str, dict[str, Any]] = {"packaged": {}, "random and thin": {"weights": "random:3", "width": 0.25, "stem": "small"}}


def measure(name: str, images: int) -> dict[str, Any]:
    """One network: the images whose top-1 depends on the way, the evaluator's beside them, and the distances in dB."""
    recipe = Recipe.load(RECIPE)
    recipe = msgspec.structs.replace(recipe, reference=msgspec.structs.replace(recipe.reference, **NETWORKS[name]))
    graph = pipeline.typed(pipeline.prepare(recipe, proof=False), Target("tensorrt"))
    batch = next(open_data("packaged:fashion-test", recipe.preprocess, images).batches(images))
    evaluator: Any = ReferenceEvaluator(ir.to_proto(graph))
    found = evaluator.run(None, {str(graph.graph.inputs[0].name): batch})[0].astype(np.float32)
    ways = {way: live()(batch) for way, live in roundings(graph).items()}
    logits = np.stack(list(ways.values()))
    tops = logits.argmax(2)
    return {
        "network": name,
        "images": len(batch),
        "flips": int((tops != tops[0]).any(0).sum()),
        "evaluator_alone": int((tops != found.argmax(1)).all(0).sum()),
        "evaluator_inside": float(((found >= logits.min(0)) & (found <= logits.max(0))).mean()),
        "from_evaluator": {way: snr(found, answers) for way, answers in ways.items()},
        "from_prediction": {way: snr(ways["as typed"], answers) for way, answers in ways.items() if way != "as typed"},
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| network | rounding | dB from the evaluator | dB from the prediction |", "|---|---|---:|---:|"]
    for row in rows:
        for way, far in row["from_evaluator"].items():
            near = f"{row['from_prediction'][way]:.1f}" if way in row["from_prediction"] else ""
            lines.append(f"| {row['network']} | {way} | {far:.1f} | {near} |")
    lines.append("")
    for row in rows:
        lines.append(
            f"{row['network']}: of {row['images']} images {row['flips']} differ among the roundings; the evaluator has a top-1 "
            f"of its own on {row['evaluator_alone']}, and {row['evaluator_inside']:.0%} of its logits lie between theirs.\n"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "envelope.json")
    arguments = parser.parse_args()
    rows = [measure(name, arguments.images) for name in NETWORKS]
    result = {"environment": msgspec.to_builtins(read_environment()), "rows": rows}
    write_atomically(arguments.output, json.dumps(result, indent=1).encode() + b"\n")
    write_atomically(arguments.output.with_suffix(".md"), markdown(rows).encode())
    Console(width=140).print(Markdown(markdown(rows)))


if __name__ == "__main__":
    main()
