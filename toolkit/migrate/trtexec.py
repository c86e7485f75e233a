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
from toolkit.migrate.old import COMPATIBLE, OldBuild, OldShape, layer_of, mib, pool_of, precision_of, profiles_of
from toolkit.recipe import Recipe
from toolkit.types import Target

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
BOOLEANS = {
    "refit": "refit", "stripWeights": "strip_weights", "versionCompatible": "version_compatible",
    "timingCacheFile": "timing_cache",
}  # fmt: skip
KINDS = ("fp16", "bf16", "int8", "fp8")


def read_line(text: str) -> OldBuild:
    """A trtexec command line. Raises RecipeError for shapes that are no profile, or numbers that are none."""
    flags = list(_flags(text))
    given = dict(flags)
    kinds = [*(kind for kind in KINDS if kind in given), *(("fp16", "int8") if "best" in given else ())]
    build: dict[str, Any] = {"target": "tensorrt"}
    layers: list[tuple[str, str]] = []
    said: list[str] = []
    for name, value in flags:
        if name == "layerPrecisions":
            found = [layer_of(entry, said, "--layerPrecisions") for entry in value.split(",")]
            layers += [one for one in found if one is not None]
        elif name in ("memPoolSize", "workspace"):
            _memory(name, value, build, said)
        elif name == "builderOptimizationLevel":
            build["optimization_level"] = _number(name, value)
        elif name in BOOLEANS:
            build[BOOLEANS[name]] = True
        elif name == "hardwareCompatibilityLevel":
            build["hardware_compatibility"] = COMPATIBLE.get(value.lower(), value)
        elif name in GONE:
            said.append(f"--{name}: {GONE[name]}")
        elif name not in (*SHAPES, "shapes", "onnx", "calib", "best", *KINDS, *SILENT):
            said.append(f"--{name}: not taken over; look for it in docs/reference/recipe.md")
    build |= profiles_of(_profiles(flags), "the trtexec line")
    return OldBuild(
        onnx=given.get("onnx"), cache=given.get("calib"), precision=precision_of(kinds), build=build, layers=tuple(layers),
        shapes=tuple(_shapes(flags)), said=tuple(said),
    )  # fmt: skip


def _memory(name: str, value: str, build: dict[str, Any], said: list[str]) -> None:
    """`--memPoolSize=workspace:2G,dlaSRAM:1M`, or `--workspace=2048` of old."""
    for entry in value.split(","):
        pool_of(entry, name, mib(entry.rpartition(":")[2]), build, said, "Write it as --memPoolSize=workspace:2048M")


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise RecipeError(f"--{name}={value} is not a number") from error


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
    return shlex.join([*words, f"--saveEngine={file.with_suffix('.plan')}"])  # a stranger named the input, and a shell reads it


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


def _shapes(flags: list[tuple[str, str]]) -> Iterator[OldShape]:
    """Each input's sizes in each shape: `input:1x3x224x224,mask:1x1`."""
    for name, value in flags:
        if name == "shapes" or name in SHAPES:
            for tensor, sizes in re.findall(r"(?:^|,)(.+?):(\d{1,9}(?:x\d{1,9})*)(?=,|$)", value):
                yield OldShape("opt" if name == "shapes" else name[:3], tensor, tuple(map(int, sizes.split("x"))))


def _profiles(flags: list[tuple[str, str]]) -> dict[str, list[int]]:
    """The batch of the first input in each shape; --shapes gives all three. Raises RecipeError."""
    found: dict[str, list[int]] = {kind: [] for kind in SHAPES}
    for name, value in flags:
        for kind in SHAPES if name == "shapes" else (name,) if name in SHAPES else ():
            shape = re.search(r":(\d{1,9})(x\d+)*(,|$)", value)
            if shape is None:
                raise RecipeError(f"--{name}={value} is not a shape", remedy="Write it as input:1x3x224x224")
            found[kind].append(int(shape[1]))
    return found
