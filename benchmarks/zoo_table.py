"""The zoo's rows as Markdown: how many were built and how close they are, a line a network, each refusal in its own words."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

BUILDS = {  # key of a build: what the table calls it
    "fp32 cpu": "FP32", "fp16 cpu": "FP16", "int8 cpu": "INT8",
    "fp32 rtx": "RTX FP32", "fp16 rtx": "RTX FP16", "int8+fp16 rtx": "RTX INT8",
}  # fmt: skip
THEIRS = "onnxruntime int8"
SOURCES = {
    "thin": "A ResNet of four blocks, by opset",
    "wheel": "Trained by others, inside wheels",
    "torchvision": "torchvision",
    "timm": "timm",
    "keras": "keras.applications",
    "onnx": "Light models inside the onnx package",
}
HEAD = """# The zoo

Each network's own file, run an image at a time by plain ONNX Runtime, is the truth. Cells are signal to noise of the outputs
in dB (120 at most) and the share of images with the same top-1, over {compare} images; {calibration} others calibrated. The
CPU's engines were run. TensorRT-RTX's plans (for SM89) were built here and not run: their cells are a prediction from the graph
that each was built of, with the plan's size. What a recipe leaves open for INT8 was settled once a network, on the CPU's graph.
**Random weights prove the plumbing only**: that a file is read, and keeps its answers. What INT8 costs on trained weights shows
in the group of those alone. Beside INT8 stands what ONNX Runtime's own static quantization (per channel, min-max) makes of the
same graph and images. Top-1 is the file's own: which of six photographs a crop is from, or how a text lies.
"""


def markdown(record: dict[str, Any]) -> str:
    rows = record["rows"]
    calibration, compare = record["images"]
    notes = Notes()
    lines = [HEAD.format(calibration=calibration, compare=compare), *summary(rows), ""]
    builds = list(BUILDS.values())
    columns = ("network", "written by, opset", "input", "top-1", *builds[:3], "ONNX Runtime INT8", *builds[3:])
    for source in dict.fromkeys(row["source"] for row in rows):
        lines += [f"## {SOURCES.get(source, source)}", "", "| " + " | ".join(columns) + " |", "|---|---|---" + "|---:" * 8 + "|"]
        lines += [line(row, notes) for row in rows if row["source"] == source] + [""]
    if notes.said:
        lines += ["## What was said where nothing was built", "", *(f"{n}. {text}" for text, n in notes.said.items())]
    return "\n".join(lines) + "\n"


class Notes:
    """Messages, each with the number that cells refer to."""

    def __init__(self) -> None:
        self.said: dict[str, int] = {}

    def number(self, message: str) -> int:
        return self.said.setdefault(message.replace("|", "/").replace("\n", " "), len(self.said) + 1)


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """A line a kind of build: how many were built, how many refused, and the spread of what was."""
    tried = [row for row in rows if "builds" in row]
    commits = Counter(row.get("commit") or "no commit" for row in rows)
    when = ", ".join(f"{name} ({count})" for name, count in commits.most_common())
    methods = Counter(row["settled"]["method"] if "settled" in row else "entropy, the default then" for row in tried)
    how = ", ".join(f"{name} ({count})" for name, count in methods.most_common())
    lines = [f"{len(rows)} networks were tried; {len(rows) - len(tried)} could not be made or measured. Commits: {when}."]
    lines += [f"Method of the INT8 ranges: {how}.", ""]
    lines += ["| | built | refused | a fault | least dB | median dB | all top-1 equal |", "|---|---:|---:|---:|---:|---:|---:|"]
    for key, name in {**BUILDS, THEIRS: "ONNX Runtime INT8"}.items():
        found = [build for row in tried if (build := of(row, key)) is not None]
        count = {status: sum(build["status"] == status for build in found) for status in ("built", "refused", "fault")}
        snrs = [build["snr"] for build in found if "snr" in build]
        equal = sum(build.get("agreement") == 1.0 for build in found)
        spread = f"{min(snrs):.1f} | {statistics.median(snrs):.1f}" if snrs else " | "
        lines.append(f"| {name} | {count['built']} | {count['refused']} | {count['fault']} | {spread} | {equal} |")
    return lines


def of(row: dict[str, Any], key: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = row.get(THEIRS) if key == THEIRS else row["builds"].get(key)
    return found


def line(row: dict[str, Any], notes: Notes) -> str:
    size = "x".join(map(str, row["size"])) + (" NHWC" if row["layout"] == "NHWC" else "")
    cells = [row["name"], f"{row['writer']}, {row.get('opset') or row['opset'] or ''}".rstrip(", "), size]
    if "builds" not in row:
        return "| " + " | ".join([*cells, f"not {row['failed']} [{notes.number(row['message'])}]", *[""] * 7]) + " |"
    cells.append(f"{row['top1']:.0%}" if row.get("top1") is not None else "")
    keys = [*list(BUILDS)[:3], THEIRS, *list(BUILDS)[3:]]
    return "| " + " | ".join([*cells, *(cell(of(row, key), key, notes) for key in keys)]) + " |"


def cell(build: dict[str, Any] | None, key: str, notes: Notes) -> str:
    """`61.6 · 100%`, of a plan `61.6 · 100% · 12.3 MB`, or `refused [n]`."""
    if build is None:
        return ""
    if build["status"] != "built" or "wrong" in build:
        word = "wrong" if "wrong" in build else build["status"]
        return f"{word} [{notes.number(build.get('wrong') or build['message'])}]"
    text = f"{build['snr']:.1f} · {build['agreement']:.0%}"
    return f"{text} · {build['bytes'] / 1e6:.1f} MB" if key.endswith("rtx") else text
