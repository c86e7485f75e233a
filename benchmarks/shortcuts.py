"""Measures what shortcuts do for the gradient, and draws the figures of docs/explanation/resnet.md.

    python benchmarks/shortcuts.py            measure (half a minute on one core), write the JSON, draw
    python benchmarks/shortcuts.py --draw     draw again from benchmarks/results/shortcuts.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any
from xml.etree.ElementTree import tostring

import numpy as np
from needed import research
from rich.progress import track

from toolkit.disk.files import write_atomically
from toolkit.report.chart import HEIGHT, WIDTH, Series, chart
from toolkit.report.markup import tag
from toolkit.report.scale import Axis

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "shortcuts.json"
FIGURES = ROOT / "docs" / "figures"
ARCHITECTURES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
SEEDS = range(5)
NAMES = {True: "with shortcuts", False: "plain"}
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #1d2126; } .s1 { --c: #0a66c2; } .s2 { --c: #b45309; }
.grid path { stroke: #dfe2e6; stroke-width: .7; } .grid text { fill: #5b6470; }
.line, .interval { fill: none; stroke: var(--c); stroke-width: 2; stroke-dasharray: none; } .mark { fill: var(--c); }
.labels text { fill: var(--c); font-weight: 600; paint-order: stroke; stroke: #fff; stroke-width: 3px; }
"""


def measure() -> dict[str, Any]:
    """Every layer's gradient norm, for each depth, with and without shortcuts, for each seed."""
    import torch

    gradient_norms = research("gradients").gradient_norms

    torch.set_num_threads(1)
    cases = [(arch, shortcut, seed) for arch in ARCHITECTURES for shortcut in (True, False) for seed in SEEDS]
    runs = []
    for arch, shortcut, seed in track(cases, "gradients"):
        norms = gradient_norms(arch, shortcut=shortcut, seed=seed)
        runs.append({"arch": arch, "shortcut": shortcut, "seed": seed, "norms": [float(f"{v:.5g}") for v in norms.values()]})
    return {"version": 1, "torch": torch.__version__, "what": "gradient norm of each kernel, first layer to last", "runs": runs}


def powers(runs: Sequence[dict[str, Any]], arch: str, shortcut: bool) -> np.ndarray:
    """log10 of each layer's norm over the last layer's: float64 [seeds, layers]."""
    norms = [run["norms"] for run in runs if run["arch"] == arch and run["shortcut"] is shortcut]
    return np.log10(np.array(norms) / np.array(norms)[:, -1:])


def by_layer(runs: Sequence[dict[str, Any]], arch: str = "resnet152") -> str:
    series = []
    for shortcut in (False, True):
        values = powers(runs, arch, shortcut).mean(0)
        x = tuple(float(i) for i in range(1, len(values) + 1))
        series.append(Series(name=NAMES[shortcut], x=x, y=tuple(values), style=1 + shortcut, labels=(NAMES[shortcut],)))
    return svg("ResNet-152, freshly initialized", series, Axis(label="convolution, from the input"))


def by_depth(runs: Sequence[dict[str, Any]]) -> str:
    depths = tuple(float(arch.removeprefix("resnet")) for arch in ARCHITECTURES)
    series = []
    for shortcut in (False, True):
        first = [powers(runs, arch, shortcut)[:, 0] for arch in ARCHITECTURES]
        spread = {"low": tuple(float(v.min()) for v in first), "high": tuple(float(v.max()) for v in first)}
        series.append(
            Series(
                name=NAMES[shortcut],
                x=depths,
                y=tuple(mean(map(float, v)) for v in first),
                style=1 + shortcut,
                mark="both",
                labels=("",) * (len(depths) - 1) + (NAMES[shortcut],),
                **spread,
            )
        )
    return svg("The first layer, by depth", series, Axis(label="layers", ticks=depths))


def svg(title: str, series: Sequence[Series], x: Axis) -> str:
    """One chart as a file that stands alone, on white paper."""
    y = Axis(label="norm over the last layer's, log10", ticks=(0.0, 2.0, 4.0, 6.0, 8.0, 10.0))
    drawing = chart(title, "Plain networks against networks with shortcuts.", series, x, y).find("svg")
    assert drawing is not None
    drawing.set("xmlns", "http://www.w3.org/2000/svg")
    drawing.insert(2, tag("style", STYLE))
    drawing.insert(3, tag("rect", width=WIDTH, height=HEIGHT, fill="#fff"))
    return tostring(drawing, encoding="unicode") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="draw from the results that are there")
    if not parser.parse_args().draw:
        write_atomically(RESULTS, (json.dumps(measure()) + "\n").encode())
    runs = json.loads(RESULTS.read_text())["runs"]
    FIGURES.mkdir(parents=True, exist_ok=True)
    write_atomically(FIGURES / "gradient-by-layer.svg", by_layer(runs).encode())
    write_atomically(FIGURES / "gradient-by-depth.svg", by_depth(runs).encode())
    print("| network | with shortcuts | plain |\n|---|---|---|")
    for arch in ARCHITECTURES:
        means = [10 ** powers(runs, arch, shortcut)[:, 0].mean() for shortcut in (True, False)]
        print(f"| {arch} | {means[0]:.3g} | {means[1]:.3g} |")


if __name__ == "__main__":
    main()
