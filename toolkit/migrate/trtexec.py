"""A trtexec command line of TensorRT 10 and before -> what a recipe says instead, flag by flag."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir

from toolkit.errors import RecipeError
from toolkit.graph.qdq import scheme_of
from toolkit.recipe import Recipe
from toolkit.types import Frozen, Target

SHAPES = ("minShapes", "optShapes", "maxShapes")
# What has become of flags that TensorRT 11 no longer has, or that say nothing to a build.
GONE = {
    "precisionConstraints": "removed: the graph says each precision, and TensorRT 11 keeps to it",
    "layerOutputTypes": "removed: the graph says the type of each tensor",
    "allowGPUFallback": "about DLA, which is not a target here",
    "useDLACore": "about DLA, which is not a target here",
    "noTF32": "FP32 islands use TF32 where the library does; there is no key for it",
}
SILENT = ("verbose", "saveEngine", "loadEngine", "dumpProfile", "dumpLayerInfo", "exportProfile", "exportTimes", "iterations",
          "duration", "warmUp", "avgRuns", "profile",
          "useCudaGraph", "useSpinWait", "noDataTransfers", "skipInference", "buildOnly",
          "profilingVerbosity", "device", "streams", "percentile", "separateProfileRun", "stronglyTyped")  # fmt: skip
MEMORY = re.compile(r"workspace:([\d.]+)([KMG]?)i?B?", re.IGNORECASE)
COMPATIBLE = {"ampere+": "ampere_plus", "sameComputeCapability": "same_compute_capability"}
MIB = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024}


class Line(Frozen, frozen=True):
    """`onnx` and `calibration` are paths as written; `precision` and `build` keys of a recipe; `said` one remark a flag."""

    onnx: str | None
    cache: str | None
    precision: dict[str, Any]
    build: dict[str, Any]
    said: tuple[str, ...]


def read_line(text: str) -> Line:
    """Raises RecipeError for a line without --onnx, or shapes that are no profile."""
    flags = list(_flags(text))
    given = dict(flags)
    precision: dict[str, Any] = {}
    build: dict[str, Any] = {"target": "tensorrt"}
    said: list[str] = []
    if "fp16" in given or "best" in given:
        precision["compute"] = "fp16"
    elif "bf16" in given:
        precision["compute"] = "bf16"
    if "int8" in given or "best" in given:
        precision["int8"] = True
    elif "fp8" in given:
        precision["fp8"] = True
    for name, value in flags:
        if name == "layerPrecisions":
            _layers(value, precision, said)
        elif name == "memPoolSize" and (found := MEMORY.search(value)):
            build["workspace_mib"] = round(float(found[1]) * MIB[found[2].upper()])
        elif name == "workspace":
            build["workspace_mib"] = round(float(value))
        elif name == "builderOptimizationLevel":
            build["optimization_level"] = int(value)
        elif name == "timingCacheFile":
            build["timing_cache"] = True
        elif name in ("refit", "stripWeights", "versionCompatible"):
            build[{"refit": "refit", "stripWeights": "strip_weights", "versionCompatible": "version_compatible"}[name]] = True
        elif name == "hardwareCompatibilityLevel":
            build["hardware_compatibility"] = COMPATIBLE.get(value, value)
        elif name in GONE:
            said.append(f"--{name}: {GONE[name]}")
        elif name not in (*SHAPES, "onnx", "calib", "fp16", "bf16", "int8", "fp8", "best", *SILENT):
            said.append(f"--{name}: not taken over; look for it in docs/reference/recipe.md")
    if profiles := _profiles(flags):
        build["batch"] = profiles[0] if len(profiles) == 1 else profiles
    return Line(onnx=given.get("onnx"), cache=given.get("calib"), precision=precision, build=build, said=tuple(said))


def trtexec_line(file: Path, recipe: Recipe, target: Target, name: str | None = None) -> str:
    """How trtexec builds a typed graph of ours, profiles included; empty where the graph has a CPU's Q/DQ pairs.

    `target` is what the graph was typed for, `name` its input (absent: as the file has it). TensorRT takes no activations with a
    zero point, which a CPU's scheme has. TensorRT 11 networks are always strongly typed; on 10.13 and later --stronglyTyped says
    so, and 11 takes it too.
    """
    if recipe.precision.quantized and scheme_of(target) == "cpu":
        return ""
    name = name or input_of(file)
    how = recipe.preprocess
    image = "x".join(map(str, how.pixel_shape if how.inside else how.input_shape))
    several = len(recipe.build.profiles) > 1
    words = ["trtexec", f"--onnx={file}", "--stronglyTyped"]
    for index, batches in enumerate(recipe.build.profiles):
        words += [f"--profile={index}"] if several else []
        words += [f"--{kind}={name}:{batch}x{image}" for kind, batch in zip(SHAPES, batches, strict=True)]
    return " ".join([*words, f"--saveEngine={file.with_suffix('.plan')}"])


def input_of(file: Path) -> str:
    """The name of an ONNX file's first input."""
    return ir.load(file).graph.inputs[0].name or ""


def _flags(text: str) -> Iterator[tuple[str, str]]:
    try:
        words = shlex.split(text.replace("\\\n", " "))
    except ValueError as error:
        raise RecipeError(f"the trtexec line cannot be read: {error}") from error
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            yield name, value


def _layers(value: str, precision: dict[str, Any], said: list[str]) -> None:
    """`--layerPrecisions=conv1:fp32,fc:fp16,*:int8`: FP32 layers to `keep_fp32`, those not INT8 to `keep`."""
    keep, keep_fp32 = [], []
    for entry in value.split(","):
        layer, _, kind = entry.rpartition(":")
        kind = kind.split("+")[0]
        if kind in ("fp32", "fp16", "bf16") and layer != "*":
            keep.append(layer)
        if kind == "fp32" and layer != "*":
            keep_fp32.append(layer)
        if layer == "*":
            said.append(f"--layerPrecisions *:{kind}: the rest is as `compute` and `int8` say")
    if keep and (precision.get("int8") or precision.get("fp8")):
        precision["keep"] = keep
    if keep_fp32 and precision.get("compute", "fp32") != "fp32":
        precision["keep_fp32"] = keep_fp32


def _profiles(flags: list[tuple[str, str]]) -> list[list[int]]:
    """The batch of the first input in each shape, by profile. Raises RecipeError."""
    found: dict[str, list[int]] = {kind: [] for kind in SHAPES}
    for name, value in flags:
        if name in SHAPES:
            shape = re.search(r":(\d+)(x\d+)*", value)
            if shape is None:
                raise RecipeError(f"--{name}={value} is not a shape", remedy="Write it as input:1x3x224x224")
            found[name].append(int(shape[1]))
    counts = {len(sizes) for sizes in found.values()}
    if len(counts) > 1:
        raise RecipeError("the trtexec line does not give --minShapes, --optShapes and --maxShapes alike")
    return [list(profile) for profile in zip(*(found[kind] for kind in SHAPES), strict=True)]
