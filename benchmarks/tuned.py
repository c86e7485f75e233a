"""Is the winner of `toolkit tune` what it says it is? Tune, build what it chose and what it had to beat, and measure again.

    python benchmarks/tuned.py [RECIPE...] [-o benchmarks/results/tuned.json]

Without recipes: both packaged models, and a full-size ResNet-50 whose last layer is fitted to six photographs (peers.py), with
600 crops to be judged on. The winner is built as `toolkit build` builds it, proof included; beside it stand FP32, FP16 and the
recipe as it came. They are timed in shuffled rounds at the batch that the recipe optimizes for, each engine opened anew several
times. The ratio is that of medians in the same round, with a 95 % interval over rounds.
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
from peers import HOW, PHOTOGRAPHS, SCRATCH, crops, fitted
from rich.console import Console
from rich.markdown import Markdown
from side_by_side import ratio

from toolkit import orders
from toolkit.cli.progress import stages
from toolkit.disk.files import write_atomically
from toolkit.engine import engine
from toolkit.harness.environment import read_environment
from toolkit.harness.latency import Sampling, measure_latency
from toolkit.harness.run import entries_of
from toolkit.manifest import Manifest
from toolkit.recipe import Accept, Build, Calibration, Precision, Recipe, Reference
from toolkit.tuning import TuneResult, tune
from toolkit.tuning.workbench import vary
from toolkit.types import Stage

ROOT = Path(__file__).resolve().parent
PACKAGED = ("fashion-resnet18-int8", "fashion-resnet50-int8")
NEVER = -1.0  # a precision that no engine reaches: every engine takes every round


def full_size() -> Recipe:
    """ResNet-50 at 224x224 with 600 labeled crops that neither the fit nor the calibration saw."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    folders = {"calibration": (128, 1), "accept": (600, 2)}
    for name, (count, seed) in folders.items():
        if (SCRATCH / name).is_dir():
            continue
        draft = SCRATCH / f"{name}.part"
        for index, crop in enumerate(crops(count, seed)):
            place = draft / str(index % PHOTOGRAPHS)
            place.mkdir(parents=True, exist_ok=True)
            crop.save(place / f"{index:03}.png")
        draft.rename(SCRATCH / name)
    return Recipe(
        name="resnet50-224-int8",
        reference=Reference(arch="resnet50", weights=str(fitted())),
        preprocess=HOW,
        precision=Precision(int8=True),
        calibration=Calibration(data=str(SCRATCH / "calibration"), images=128),
        build=Build(batch=(1, 1, 32)),
        accept=Accept(data=str(SCRATCH / "accept"), max_top1_drop=1.0, min_agreement=0.95),
    )


def again(found: TuneResult, stage: Stage, seconds: float) -> dict[str, Any]:
    """Build the winner and its rivals, and measure them."""
    given = found.recipe
    winner = found.winner.recipe
    rivals = {
        "as given": given,
        "fp32": vary(given, int8=False, compute="fp32"),
        "fp16": vary(given, int8=False, compute="fp16"),
    }
    with tempfile.TemporaryDirectory() as scratch:
        named = [msgspec.structs.replace(recipe, name=name.replace(" ", "-")) for name, recipe in rivals.items()]
        [(folder, manifest)] = orders.build_all([winner], None, Path(scratch), stage)
        folders = {"winner": folder}
        built = orders.build_all(named, None, Path(scratch), stage, proof=False)
        folders |= dict(zip(rivals, (folder for folder, _ in built), strict=True))
        rounds = timed(folders, given.build.profiles[0][1], stage, seconds)
    floating = min(("fp32", "fp16"), key=lambda name: float(np.median(np.concatenate(rounds[name]))))
    return {
        "engine": precision(manifest),
        "p50_ms": {name: 1e-6 * float(np.median(np.concatenate(blocks))) for name, blocks in rounds.items()},
        "best_floating": floating,
        "faster": {name: ratio(rounds[name], rounds["winner"]) for name in rivals},
        "notes": manifest.notes,
        "rounds_ns": rounds,
    }


def precision(manifest: Manifest) -> str:
    keep = (manifest.recipe.get("precision") or {}).get("keep", ())
    return manifest.precision + (f" without {', '.join(keep)}" if keep else "")


def timed(folders: dict[str, Path], batch: int, stage: Stage, seconds: float) -> dict[str, list[list[int]]]:
    """engine -> nanoseconds of every call, a list a round."""
    runners = {name: engine.load(folder) for name, folder in folders.items()}
    plan = Sampling(seconds=seconds * len(runners), precision=NEVER, warmup=3.0, most_blocks=10_000)
    found = measure_latency(entries_of(runners, (batch,)), plan, progress=stage(f"winner and rivals at batch {batch}"))
    whole = min(len(measured.blocks) for measured in found)
    for runner in runners.values():
        runner.close()
    return {m.engine: [list(block.samples_ns) for block in m.blocks[:whole]] for m in found}


def row(name: str, found: TuneResult, seconds: float, measured: dict[str, Any]) -> dict[str, Any]:
    floating = [trial for trial in found.finalists if not trial.recipe.precision.int8 and trial.p10_ms and trial.accurate]
    bar = min((trial.time for trial in floating), default=float("nan"))
    verdict = found.winner.held_out
    return {
        "recipe": name,
        "evaluations": found.evaluations,
        "tune_seconds": seconds,
        "winner": found.winner.name,
        "said_faster": bar / found.winner.time,
        "verdict_held_out": verdict.text if verdict else "",
        "reasons": found.reasons,
        **measured,
    }


def markdown(rows: list[dict[str, Any]], device: str) -> str:
    lines = [
        f"Measured on {device}. `x` is how many times as fast the winner is; its 95 % interval is over shuffled rounds.",
        "",
        "| recipe | graphs | tune, s | winner | x best floating, said | measured again | x as given | verdict, held-out half |",
        "|---|---:|---:|---|---:|---:|---:|---|",
    ]
    for r in rows:
        floating, given = ("{:.2f} [{:.2f}, {:.2f}]".format(*r["faster"][name]) for name in (r["best_floating"], "as given"))
        cells = [r["recipe"], str(r["evaluations"]), f"{r['tune_seconds']:.0f}", r["engine"], f"{r['said_faster']:.2f}"]
        cells += [f"{floating} ({r['best_floating']})", given, r["verdict_held_out"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("recipes", type=Path, nargs="*")
    ask.add_argument("--seconds", type=float, default=8.0, help="that each engine is measured again")
    ask.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "tuned.json")
    given = ask.parse_args()
    recipes = [Recipe.load(path) for path in given.recipes]
    recipes = recipes or [*(Recipe.load(ROOT.parent / "engines" / f"{name}.toml") for name in PACKAGED), full_size()]
    environment, rows = read_environment(), []
    for recipe in recipes:
        with stages() as stage:
            begin = time.perf_counter()
            found = tune(recipe, stage)
            rows.append(row(recipe.name, found, time.perf_counter() - begin, again(found, stage, given.seconds)))
        result = {"environment": msgspec.to_builtins(environment), "rows": rows}
        write_atomically(given.output, json.dumps(result, indent=1).encode() + b"\n")
        write_atomically(given.output.with_suffix(".md"), markdown(rows, environment.device).encode())
    Console().print(Markdown(markdown(rows, environment.device)))


if __name__ == "__main__":
    main()
