"""OldBuild: what a build of TensorRT 10 and before was asked for, by whatever asked: trtexec, Polygraphy or a script."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from toolkit.errors import RecipeError
from toolkit.graph.edit import matches
from toolkit.types import Frozen

# What each library calls the type of a layer -> ours; anything else is named and not taken over.
TYPES = {
    "fp32": "fp32", "float32": "fp32", "float": "fp32", "fp16": "fp16", "float16": "fp16", "half": "fp16",
    "bf16": "bf16", "bfloat16": "bf16", "int8": "int8", "fp8": "fp8",
}  # fmt: skip
METHODS = {"int8minmax": "minmax", "int8entropy": "entropy", "int8legacy": "percentile"}  # by a part of a calibrator's class
FLOATS = ("fp32", "fp16", "bf16")
MIB = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024}
COMPATIBLE = {"ampere+": "ampere_plus", "samecomputecapability": "same_compute_capability"}


class OldShape(Frozen, frozen=True):
    """What an old profile says of one input: `min`, `opt` or `max`, its name, and its sizes, None where only a run would tell."""

    kind: str
    name: str
    sizes: tuple[int | None, ...]


class OldBuild(Frozen, frozen=True):
    """`onnx` and `cache` are paths as written; `precision`, `build` and `calibration` keys of a recipe.

    `layers`: pairs of a layer (`*` allowed) and what it was to compute in; `said`: a remark for each thing without a counterpart.
    """

    onnx: str | None = None
    cache: str | None = None
    precision: dict[str, Any] = {}
    build: dict[str, Any] = msgspec.field(default_factory=lambda: {"target": "tensorrt"})
    calibration: dict[str, Any] = {}
    layers: tuple[tuple[str, str], ...] = ()
    shapes: tuple[OldShape, ...] = ()
    said: tuple[str, ...] = ()


def precision_of(kinds: Iterable[str]) -> dict[str, Any]:
    """The flags that a builder was given (fp16, bf16, int8, fp8) as keys of `[precision]`: the narrowest that each allows."""
    given = set(kinds)
    found: dict[str, Any] = {}
    if given & {"fp16", "bf16"}:
        found["compute"] = "fp16" if "fp16" in given else "bf16"
    if given & {"int8", "fp8"}:
        found["int8" if "int8" in given else "fp8"] = True
    return found


def layer_of(entry: str, said: list[str], flag: str) -> tuple[str, str] | None:
    """`conv1:fp32+fp16` -> ("conv1", "fp32"); without a layer it is for all of them. None, and a remark, for other types."""
    layer, _, kind = entry.strip().rpartition(":")
    first = TYPES.get(kind.split("+")[0].strip().lower())
    if first is None:
        said.append(f"{flag} {entry}: '{kind}' is no type that a layer can have here")
        return None
    return layer.strip() or "*", first


def constrained(old: OldBuild, names: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """`keep` and `keep_fp32` for the layers that were to compute in a floating-point type, and what to say of the others.

    `names` are those of the graph's nodes: a layer that is not among them, be it fused or of another export, is named.
    """
    every, said = list(names), list[str]()
    last = dict(old.layers)  # the last constraint of a layer stands, as in TensorRT
    unknown = [layer for layer in last if layer != "*" and not any(matches(name, [layer]) for name in every)]
    known = {layer: kind for layer, kind in last.items() if layer != "*" and layer not in unknown}
    found: dict[str, Any] = {}
    floating = [layer for layer, kind in known.items() if kind in FLOATS]
    if floating and (old.precision.get("int8") or old.precision.get("fp8")):
        found["keep"] = floating
    wide = [layer for layer, kind in known.items() if kind == "fp32"]
    if wide and old.precision.get("compute", "fp32") != "fp32":
        found["keep_fp32"] = wide
    if unknown:
        said.append(f"layers with a type of their own that the graph has not (fused, or another export): {shortened(unknown)}")
    if "*" in last:
        said.append(f"all layers in {last['*']}: the rest is as `compute` and `int8` say")
    return found, said


def method_of(calibrator: str) -> dict[str, Any]:
    """A calibrator's class, such as `trt.IInt8EntropyCalibrator2`, as keys of `[calibration]`; nothing of another class."""
    return next(({"method": way} for part, way in METHODS.items() if part in calibrator.lower()), {})


def is_there(path: Path) -> bool:
    """Whether it is a file; text that can be no path, such as a long command line, is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def shortened(names: list[str], most: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def mib(text: str) -> int | None:
    """`2G`, `512`, `1024MiB` as MiB; a bare number is MiB. None for what is no size."""
    found = re.fullmatch(r"([\d.]+)\s*([KMG]?)i?B?", text.strip(), re.IGNORECASE)
    try:
        return max(1, round(float(found[1]) * MIB[found[2].upper()])) if found else None
    except ValueError:  # 1.2.3
        return None


def pool_of(entry: str, flag: str, amount: int | None, build: dict[str, Any], said: list[str], remedy: str) -> None:
    """A memory pool's limit of `amount` MiB: the workspace's is a key of `[build]`, no other pool has one. Raises RecipeError."""
    if amount is None:
        raise RecipeError(f"--{flag} {entry} is not a size", remedy=remedy)
    if entry.rpartition(":")[0] in ("", "workspace"):
        build["workspace_mib"] = amount
    else:
        said.append(f"--{flag} {entry}: there is no key for this pool")


def profiles_of(shapes: dict[str, list[int]], what: str) -> dict[str, Any]:
    """The batch of the first input in each minimum, optimum and maximum, by profile, as keys of `[build]`. Raises RecipeError."""
    if len({len(sizes) for sizes in shapes.values()}) > 1:
        raise RecipeError(f"{what} does not give the smallest, the best and the largest shapes alike")
    profiles = [list(profile) for profile in zip(*shapes.values(), strict=True)]
    if not profiles:
        return {}
    return {"batch": profiles[0] if len(profiles) == 1 else profiles}
