"""Where no tool's INT8 keeps 95 % of the answers: how many layers must stay in floating point until 95 % are kept.

    python benchmarks/int8_zoo.py                 # once: it tells which networks these are
    python benchmarks/int8_keep.py [NETWORK...]

`toolkit why` orders the layers by what each costs the logits; the first 1, 2, 4, 8 ... of them are left out of INT8 (`keep` in a
recipe), and the graph is built and judged again on the images that all tools of int8_zoo.py answered. The layers are chosen
on calibration images, how many of them on the judged ones: this tells what it takes, not what a build would choose. Written to
benchmarks/results/int8_keep.json and int8_keep.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from int8_zoo import MIXED, RESULTS, answers, best_agreement, comparing, held
from zoo_case import recipe_of
from zoo_networks import Network, networks

import toolkit
from toolkit.disk.files import cache_folder, write_atomically
from toolkit.graph.run import graph_runner
from toolkit.harness.environment import read_environment
from toolkit.onnxfile import serialize
from toolkit.pipeline import prepare, typed
from toolkit.recipe import Precision, Recipe
from toolkit.types import Target
from toolkit.why import LayerLoss, why

ENOUGH = 0.95


def costly(recipe: Recipe, folder: Path) -> list[LayerLoss]:
    """The layers in INT8 by what they cost the logits, the worst first."""
    [engine] = toolkit.build(recipe, out=folder, proof=False)
    found = [layer for layer in why(engine.path, remedies=False).layers if layer.precision == "int8" and layer.work]
    return sorted(found, key=lambda layer: layer.share, reverse=True)


def steps(net: Network, cache: Path) -> list[dict[str, Any]]:
    """What is reached with none, 1, 2, 4 ... layers left out, until it is enough or nothing is left."""
    recipe = recipe_of(net, cache / "onnx" / net.name / "model.onnx", cache / "images", Precision(int8=True))
    pictures = comparing(net, cache / "images", recipe)
    with tempfile.TemporaryDirectory() as folder:
        layers = costly(recipe, Path(folder))
    found: list[dict[str, Any]] = []
    count = 0
    while not found or (found[-1]["agreement"] < ENOUGH and count < len(layers)):
        kept = layers[:count]
        precision = Precision(int8=True, keep=tuple(layer.name for layer in kept))
        trip = prepare(msgspec.structs.replace(recipe, precision=precision), proof=False)
        truth = answers(serialize(trip.source.graph), pictures)
        row = held(truth, graph_runner(typed(trip, Target("cpu")), 1)(pictures))
        work = sum(layer.work for layer in kept)
        found.append({**row, "kept": len(kept), "layers": len(layers), "work": work, "names": precision.keep})
        print(f"{net.name}: {found[-1]}", flush=True)
        count = max(1, 2 * count)
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | best INT8 of any tool | the toolkit's | layers left out | of the multiply-adds | then | NNCF, control |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        last = row["steps"][-1]
        cells = [row["network"], f"{row['best']:.1%}", f"{row['steps'][0]['agreement']:.1%}"]
        cells += [f"{last['kept']} of {last['layers']}", f"{last['work']:.0%}", f"{last['agreement']:.1%}, {last['snr']:.1f} dB"]
        lines.append("| " + " | ".join([*cells, row["controlled"]]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "zoo")
    options = parser.parse_args()
    compared = {row["network"]: row for row in json.loads((RESULTS / "int8_zoo.json").read_bytes())["rows"]}
    rows = []
    for net in networks():
        row = compared.get(net.name)
        if row is None or (options.names and net.name not in options.names):
            continue
        best = max(best_agreement(row), row["tools"]["toolkit"].get("agreement", 0.0))
        if best >= ENOUGH:
            continue
        nncf = row["tools"].get(MIXED, {})
        controlled = f"{nncf['agreement']:.1%} of {nncf['images']}" if "agreement" in nncf else "none"
        rows.append({"network": net.name, "best": best, "controlled": controlled, "steps": steps(net, options.cache)})
        record = {"environment": msgspec.to_builtins(read_environment()), "rows": rows}
        write_atomically(RESULTS / "int8_keep.json", json.dumps(record, indent=1).encode() + b"\n")
        write_atomically(RESULTS / "int8_keep.md", markdown(rows).encode())


if __name__ == "__main__":
    main()
