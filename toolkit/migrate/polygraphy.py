"""A Polygraphy command line (`polygraphy convert`, `polygraphy run`) -> what a recipe says instead, option by option.

Its grammar is argparse's: `--option value ...` or `--option=value`, values up to the next dash. Shapes are written
`X:[1,3,224,224]`, in old versions `X,1x3x224x224`; an option for shapes that is given again begins another profile.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from toolkit.errors import RecipeError
from toolkit.migrate.old import OldBuild, OldShape, layer_of, method_of, mib, pool_of, precision_of, profiles_of

SHAPES = {"trt-min-shapes": "min", "trt-opt-shapes": "opt", "trt-max-shapes": "max"}
SHAPE = re.compile(r"(.*?)(?::\[(\d{1,9}\s*(?:,\s*\d{1,9}\s*)*)\]|[,:](\d{1,9}(?:x\d{1,9})*))")
KINDS = ("fp16", "bf16", "int8", "fp8")
BOOLEANS = {
    "refittable": "refit", "strip-plan": "strip_weights", "version-compatible": "version_compatible",
    "load-timing-cache": "timing_cache", "save-timing-cache": "timing_cache", "timing-cache": "timing_cache",
}  # fmt: skip
GONE = {
    "precision-constraints": "removed: the graph says each precision, and TensorRT 11 keeps to it",
    "obey-precision-constraints": "removed: the graph says each precision, and TensorRT 11 keeps to it",
    "tf32": "FP32 islands use TF32 where the library does; there is no key for it",
    "use-dla": "about DLA, which is not a target here",
    "allow-gpu-fallback": "about DLA, which is not a target here",
    "tensor-dtypes": "an engine takes float32 images, or pixels by `preprocess.inside`, and gives float32 answers",
    "all-tensor-dtypes": "an engine takes float32 images, or pixels by `preprocess.inside`, and gives float32 answers",
    "data-loader-script": "scripts are not run: name the images by --data",
    "trt-network-postprocess-script": "scripts are not run: give the script itself to `toolkit migrate` beside this line",
    "trt-config-script": "scripts are not run: give the script itself to `toolkit migrate` in place of this line",
    "trt-config-postprocess-script": "scripts are not run: give the script itself to `toolkit migrate` beside this line",
}
SAME = {
    "tensor-datatypes": "tensor-dtypes", "all-tensor-datatypes": "all-tensor-dtypes", "memory-pool-limit": "pool-limit",
    "calib-base-cls": "calibration-base-class", "trt-npps": "trt-network-postprocess-script",
    "trt-cpps": "trt-config-postprocess-script", "calib-cache": "calibration-cache", "int8-calib-cache": "calibration-cache",
}  # fmt: skip
# About files, comparisons and logs: nothing of a build.
SILENT = ("o", "output", "convert-to", "to-trt", "model-type", "trt", "onnxrt", "verbose", "v", "vv", "vvv", "quiet", "q", "atol",
          "rtol", "abs", "rel", "check-error-stat", "iterations", "warm-up", "seed", "val-range", "input-shapes", "inputs",
          "save-engine", "save-outputs", "save-inputs", "load-outputs", "load-inputs", "profiling-verbosity", "strongly-typed",
          "trt-outputs", "onnx-outputs", "validate", "fail-fast", "silent", "log-file", "plugins", "use-gpu")  # fmt: skip
LAST = ("output", "o")  # take one word; what comes after it is the model


def is_polygraphy(text: str) -> bool:
    """Whether a command line is Polygraphy's."""
    return re.search(r"(^|[\s/])polygraphy\s", text) is not None


def read_polygraphy(text: str) -> OldBuild:
    """Raises RecipeError for a line that no shell would take, shapes that are no profile, or sizes that are none."""
    model, options = _options(text)
    build: dict[str, Any] = {"target": "tensorrt"}
    calibration: dict[str, Any] = {}
    shapes: dict[str, list[int]] = {kind: [] for kind in SHAPES.values()}
    inputs: list[OldShape] = []
    layers: list[tuple[str, str]] = []
    said: list[str] = []
    cache = None
    for name, values in options:
        first = values[0] if values else ""
        if name in SHAPES:
            inputs += (found := [_shape(name, value) for value in values or [""]])
            shapes[SHAPES[name]].append(found[0].sizes[0] or 0)
        elif name == "layer-precisions":
            entries = [entry for value in values for entry in re.split(r",(?=\S)", value)]
            layers += [one for entry in entries if (one := layer_of(entry, said, "--layer-precisions")) is not None]
        elif name == "calibration-cache":
            cache = first or None
        elif name == "calibration-base-class":
            calibration |= method_of(first)
        elif name in ("pool-limit", "workspace"):
            _memory(name, values, build, said)
        elif name == "builder-optimization-level" and first.isdecimal():
            build["optimization_level"] = int(first[:9])
        elif name == "hardware-compatibility-level":
            build["hardware_compatibility"] = first.lower().rpartition(".")[2]
        elif name in BOOLEANS:
            build[BOOLEANS[name]] = True
        elif name in GONE:
            said.append(f"--{name}{' ' if values else ''}{' '.join(values)}: {GONE[name]}")
        elif name not in (*KINDS, *SILENT):
            said.append(f"--{name}: not taken over; look for it in docs/reference/recipe.md")
    precision = precision_of(name for name, _ in options if name in KINDS)
    build |= profiles_of(shapes, "the Polygraphy line")
    return OldBuild(
        onnx=model, cache=cache, precision=precision, build=build, calibration=calibration, layers=tuple(layers),
        shapes=tuple(inputs), said=tuple(said),
    )  # fmt: skip


def _options(text: str) -> tuple[str | None, list[tuple[str, list[str]]]]:
    """The model, and each option with its values, in their order."""
    try:
        words = shlex.split(text.replace("\\\n", " "))
    except ValueError as error:
        raise RecipeError(f"the Polygraphy line cannot be read: {error}") from error
    model, options = None, list[tuple[str, list[str]]]()
    for word in words:
        if re.match(r"--?[A-Za-z]", word):
            name, equals, value = word.lstrip("-").partition("=")
            name = name.replace("_", "-")
            options.append((SAME.get(name, name), [value] if equals else []))
        elif word.endswith(".onnx") and not (options and options[-1][0] in LAST and not options[-1][1]):
            model = model or word
        elif options:
            options[-1][1].append(word)
    return model, options


def _shape(name: str, value: str) -> OldShape:
    found = SHAPE.fullmatch(value)
    if found is None:
        raise RecipeError(f"--{name} {value or 'without a shape'} is not a shape", remedy="Write it as input:[1,3,224,224]")
    return OldShape(SHAPES[name], found[1], tuple(map(int, re.split(r"\s*[,x]\s*", (found[2] or found[3]).strip()))))


def _memory(name: str, values: list[str], build: dict[str, Any], said: list[str]) -> None:
    """`--pool-limit workspace:2G`, or `--workspace 2G` of old; a bare number is bytes."""
    for entry in values:
        size = entry.rpartition(":")[2]
        amount = _bytes(size) if re.fullmatch(r"[\d.]+(e[+-]?\d+)?", size, re.IGNORECASE) else mib(size)
        pool_of(entry, name, amount, build, said, "Write it as --pool-limit workspace:2G")


def _bytes(text: str) -> int | None:
    try:
        return max(1, round(float(text) / 2**20))
    except (ValueError, OverflowError):
        return None
