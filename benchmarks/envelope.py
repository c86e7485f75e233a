"""How far onnx's reference evaluator lies from a prediction and from its envelope: python benchmarks/envelope.py [--images 64]

The evaluator computes an FP16 graph in half precision throughout, and adds up in an order of its own: a backend that is not ours.
Two networks: the packaged ResNet-18, and a thin one of random weights, whose answers lie close to one another.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from toolkit import pipeline
from toolkit.graph.envelope import roundings
from toolkit.harness.answers import snr
from toolkit.images.dataset import open_data
from toolkit.recipe import Recipe
from toolkit.types import Target

RECIPE = Path(__file__).parent.parent / "engines" / "fashion-resnet18-fp16.toml"
NETWORKS = {"packaged": {}, "random and thin": {"weights": "random:3", "width": 0.25, "stem": "small"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    images = parser.parse_args().images
    for name, change in NETWORKS.items():
        recipe = Recipe.load(RECIPE)
        recipe = msgspec.structs.replace(recipe, reference=msgspec.structs.replace(recipe.reference, **change))
        graph = pipeline.typed(pipeline.prepare(recipe, proof=False), Target("tensorrt"))
        batch = next(open_data("packaged:fashion-test", recipe.preprocess, images).batches(images))
        found = ReferenceEvaluator(ir.to_proto(graph)).run(None, {graph.graph.inputs[0].name: batch})[0].astype(np.float32)
        ways = {way: live()(batch) for way, live in roundings(graph).items()}
        tops = np.stack([answers.argmax(1) for answers in ways.values()])
        logits = np.stack(list(ways.values()))
        inside = ((found >= logits.min(0)) & (found <= logits.max(0))).mean()
        print(f"{name}: of {len(batch)} images {(tops != tops[0]).any(0).sum()} differ among the ways")
        alone = (tops != found.argmax(1)).all(0).sum()
        print(f"  evaluator: a top-1 of its own on {alone}; {inside:.0%} of its logits lie between those of the ways")
        for way, answers in ways.items():
            near = "" if way == "as typed" else f", {snr(ways['as typed'], answers):.1f} dB from the prediction"
            print(f"  {way}: {snr(found, answers):.1f} dB from the evaluator{near}")


if __name__ == "__main__":
    main()
