"""What hostile weights do to INT8, and what equalization brings back: top-1 on all test images of the packaged models.

    python benchmarks/hostile.py [--seeds 1,2] [--decades 3.2] [--images 10000] [--weights FILE --arch resnet50 --data FOLDER]

The same function in FP32, six ruins of the weights (`research.hostile`), and INT8 from ONNX Runtime's own static
quantization (per channel, min-max) and from the toolkit without equalization, with pairs, and with whole residual streams.
With `--weights` and `--data` it takes one checkpoint of yours as it is instead, such as timm's resnet50 a1 or torchvision's V2,
with a folder of ImageNet's validation images. It prints a table and writes benchmarks/results/hostile.json and hostile.md, anew
after each row.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from needed import research
from rich.console import Console
from rich.markdown import Markdown
from safetensors.torch import save_file

from toolkit import cpu
from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.cli.progress import stages
from toolkit.disk.files import write_atomically
from toolkit.graph.run import graph_runner
from toolkit.harness.accuracy import answers_of, compare_accuracy
from toolkit.harness.environment import read_environment
from toolkit.harness.verdict import Verdict
from toolkit.images.dataset import PACKAGED, open_data
from toolkit.onnxfile import serialize
from toolkit.pipeline import prepare, typed
from toolkit.recipe import Preprocess, Recipe, Reference
from toolkit.reference.weights import read_weights
from toolkit.tuning.workbench import vary
from toolkit.types import Classifier, Stage, Target

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is loaded

ROOT = Path(__file__).resolve().parent
MODELS = ("fashion-resnet18", "fashion-resnet50")
MODES = ("none", "pairs", "streams")


def onnxruntime_int8(recipe: Recipe, graph: Any, folder: Path) -> Classifier:
    """The graph as ONNX Runtime's own static quantization makes it: U8S8, per channel, min-max, on the same images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(open_data(recipe.calibration.data, recipe.preprocess, 128).batches(8))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {graph.graph.inputs[0].name: batch}

    (folder / "fp32.onnx").write_bytes(serialize(graph))
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(folder / "fp32.onnx", folder / "int8.onnx", Reader(), per_channel=True, **types)
    live = onnxruntime.session(str(folder / "int8.onnx"), Target("cpu"), {"threads": cpu.cores()})
    return onnxruntime.SessionExecutor(live, live.get_inputs()[0].name, live.get_outputs()[0].name).run


def measure(recipe: Recipe, limit: int, stage: Stage) -> dict[str, Any]:
    """Top-1 in percent and the verdict of each way to INT8, against the FP32 graph."""
    assert recipe.accept.data is not None
    images = open_data(recipe.accept.data, recipe.preprocess, limit)
    first = prepare(vary(recipe, equalize="none"), stage, proof=False)
    truth = answers_of(graph_runner(first.source.graph), images, progress=stage("FP32"))
    accept = recipe.accept

    def judge(name: str, runner: Classifier) -> dict[str, Any]:
        answers = answers_of(runner, images, name=name, progress=stage(name))
        verdict = compare_accuracy(truth, answers, images.labels, accept, name=name)
        return summary(verdict)

    found: dict[str, Any] = {"fp32": {"top1": float((truth.argmax(1) == images.labels).mean() * 100)}}
    with tempfile.TemporaryDirectory() as folder:
        found["onnxruntime"] = judge("onnxruntime", onnxruntime_int8(recipe, first.source.graph, Path(folder)))
    for mode in MODES:
        trip = prepare(vary(recipe, equalize=mode), stage, like=first)
        found[mode] = judge(f"toolkit, {mode}", graph_runner(typed(trip, Target("cpu"))))
    return found


def summary(verdict: Verdict) -> dict[str, Any]:
    top1 = None if verdict.top1 is None else 100 * verdict.top1[1]
    return {"top1": top1, "agreement": 100 * verdict.agreement, "accepted": verdict.accepted, "text": verdict.text}


def packaged(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[dict[str, Any], Recipe]]:
    """Both packaged models: as they are, and under every recipe and seed."""
    hostile = research("hostile")
    for name in MODELS:
        recipe = Recipe.load(ROOT.parent / "engines" / f"{name}-int8.toml")
        recipe = vary(recipe, compute="fp32")
        calibration = msgspec.structs.replace(recipe.calibration, method="minmax")
        recipe = msgspec.structs.replace(recipe, calibration=calibration)
        yield {"model": name, "ruin": "as trained", "seed": None}, recipe
        weights = read_weights(PACKAGED / f"{name}.safetensors")
        for kind in hostile.RECIPES:
            for seed in arguments.seeds:
                state = hostile.ruin(weights.tensors, kind, decades=arguments.decades, seed=seed)
                file = folder / f"{name}-{kind}-{seed}.safetensors"
                save_file(state, file, {**weights.metadata, "width": str(len(state["bn1.bias"]) / 64)})
                reference = msgspec.structs.replace(recipe.reference, weights=str(file))
                yield {"model": name, "ruin": kind, "seed": seed}, msgspec.structs.replace(recipe, reference=reference)


def own(arguments: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Recipe]]:
    """A checkpoint of the user's, its labeled images, and the images that calibrate it."""
    reference = Reference(arch=arguments.arch, weights=str(arguments.weights))
    recipe = Recipe(name="own", reference=reference, preprocess=Preprocess(resize=256))
    calibration = msgspec.structs.replace(recipe.calibration, data=str(arguments.calibration or arguments.data), method="minmax")
    accept = msgspec.structs.replace(recipe.accept, data=str(arguments.data))
    recipe = vary(msgspec.structs.replace(recipe, calibration=calibration, accept=accept), int8=True)
    yield {"model": arguments.weights.name, "ruin": "as trained", "seed": None}, recipe


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| model | weights | seed | FP32 | ONNX Runtime INT8 | toolkit, none | pairs | streams | verdict on streams |"]
    lines.append("|---|---|---|---:|---:|---:|---:|---:|---|")
    for row in rows:
        cells = [row["model"], row["ruin"], "" if row["seed"] is None else str(row["seed"])]
        cells += [f"{row[way]['top1']:.2f}" for way in ("fp32", "onnxruntime", *MODES)]
        lines.append(f"| {' | '.join(cells)} | {row['streams']['text']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2])
    parser.add_argument("--decades", type=float, default=3.2)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--weights", type=Path, help="a checkpoint of yours instead of the packaged models")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--data", type=Path, help="its labeled images, a folder a class")
    parser.add_argument("--calibration", type=Path, help="images to calibrate it with; absent: the same folder")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "hostile.json")
    arguments = parser.parse_args()
    rows = []
    environment = msgspec.to_builtins(read_environment())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger().setLevel(logging.ERROR)  # ONNX Runtime's quantizer asks for a pre-processing that changes nothing here
    with tempfile.TemporaryDirectory() as folder, stages() as stage:
        for case, recipe in own(arguments) if arguments.weights else packaged(arguments, Path(folder)):
            rows.append({**case, "decades": arguments.decades, **measure(recipe, arguments.images, stage)})
            result = {"environment": environment, "images": arguments.images, "rows": rows}
            write_atomically(arguments.output, json.dumps(result, indent=1).encode() + b"\n")
            write_atomically(arguments.output.with_suffix(".md"), markdown(rows).encode())
    Console().print(Markdown(markdown(rows)))
    worst = {way: float(np.min([row[way]["top1"] - row["fp32"]["top1"] for row in rows])) for way in ("onnxruntime", *MODES)}
    print("worst loss of top-1, points:", ", ".join(f"{way} {loss:+.2f}" for way, loss in worst.items()))


if __name__ == "__main__":
    main()
