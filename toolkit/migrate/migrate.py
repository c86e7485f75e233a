"""Migrate: what TensorRT 10 was given -> a recipe, and ranges with the scales of its calibration cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import onnx_ir as ir

from toolkit.backends import backend
from toolkit.disk.files import write_atomically
from toolkit.errors import BackendError, MissingExtra, RecipeError
from toolkit.graph.load.glance import glance
from toolkit.migrate.cache import Cache
from toolkit.migrate.doubts import doubts
from toolkit.migrate.old import OldBuild, OldShape, constrained
from toolkit.migrate.scales import ranges_from, told
from toolkit.migrate.sizes import sized
from toolkit.migrate.sources import read_sources
from toolkit.migrate.weigh import Weighed, weigh
from toolkit.recipe import Recipe
from toolkit.recipe.assumed import left_open
from toolkit.recipe.write import recipe_toml
from toolkit.reference.source import open_source
from toolkit.types import Stage, Target, quiet

PLACE = "calibration-images"  # a folder beside the recipe, for images that are still to come
# An engine of TensorRT 10 had just its scales: nothing of the network was changed to suit them.
AS_BEFORE = {"equalize": "none", "weights": "absmax", "rounding": "nearest", "bias_correction": False}


class Migrated(NamedTuple):
    """Where the recipe and the ranges were written, what the reader must know, and which scales to keep where images could tell.

    `recalibrated` is the recipe with new scales, where those win; `awaited` a folder that images must be put into before a build.
    """

    recipe: Path
    ranges: Path | None
    said: tuple[str, ...]
    weighed: Weighed | None = None
    recalibrated: Path | None = None
    awaited: Path | None = None

    @property
    def following(self) -> Path:
        """The recipe to build next."""
        return self.recalibrated or self.recipe

    @property
    def command(self) -> str:
        """The next command, as it works: TensorRT builds on the GPU that runs the engine; TensorRT-RTX builds anywhere, if it has
        all that the recipe asks for."""
        build, recipe = f"toolkit build {self.following}", Recipe.load(self.following)
        anywhere = Target.parse("rtx:sm89+" if recipe.precision.fp8 else "rtx")
        try:
            backend(anywhere).check(recipe.build, anywhere)
        except BackendError as error:
            why = "" if isinstance(error, MissingExtra) else f" ({error.what}. {error.remedy})"
            return f"{build}, on the GPU that runs it{why}"
        return f"{build} --target {anywhere}, or without it on the GPU that runs it"


def migrate(
    sources: list[str],
    output: Path,
    onnx: Path | None = None,
    data: Path | None = None,
    *,
    proof: bool = True,
    stage: Stage = quiet,
) -> Migrated:
    """`sources` are calibration caches, lines of trtexec or Polygraphy and builder scripts (or files with one), `data` images to
    judge by. Writes `output` and its ranges beside it.

    With a cache and images the old scales are weighed against new ones (`weigh.py`); where the new win, their recipe is written
    beside as well. Raises RecipeError where no ONNX file is named, CalibrationError for a cache that is damaged or of another
    network.
    """
    old, cache = read_sources(sources)
    model = onnx or (Path(old.onnx) if old.onnx else None)
    if model is None:
        raise RecipeError("nothing names the ONNX file", remedy="Add --onnx MODEL.onnx, or a trtexec line with --onnx=")
    raw = _raw(old, cache, model, output, data)
    raw["preprocess"], fitted = preprocess_of(model, old.shapes)
    plain = _recipe(raw)
    graph = open_source(plain).graph
    layers, unfit = constrained(old, [node.name for node in graph.graph if node.name])
    raw["precision"] |= layers
    said = [*old.said, *unfit, *fitted, _untold(plain, sized="size" in raw["preprocess"])]
    if cache is None:
        raw["calibration"] |= old.calibration
        return _without_cache(_recipe(raw), output, said, named=data is not None)
    if data is None:
        raw["calibration"].pop("data")  # the scales are there, so that a build needs none
        said.append("no images were named, so that a build cannot judge the engine: set `accept.data`")
    if old.precision.get("fp8"):
        said.append("fp8: a calibration cache holds scales of INT8, so INT8 it is")
    return _with_cache(cache, graph, raw, output, said, stage if proof and data is not None else None)


def _untold(recipe: Recipe, *, sized: bool) -> str:
    """What of [preprocess] neither the file nor old shapes tell."""
    if sized:
        return "[preprocess] has only the size: set mean, std and scale as the old pipeline had them; no file says"
    size = " x ".join(map(str, recipe.preprocess.size))
    return f"the file leaves the size of images open, {size} is assumed: set `preprocess.size`, mean, std and scale"


def _without_cache(recipe: Recipe, output: Path, said: list[str], *, named: bool) -> Migrated:
    """Write the recipe, which a quantized network's ranges are yet to be measured for, on images that were `named` or are not."""
    awaited = None if named or recipe.calibration.data is None else Path(recipe.calibration.data)
    if recipe.precision.quantized:
        which = "the images" if awaited is None else f"images, and none were named: put some into {awaited}"
        said = [*said, f"no calibration cache: the ranges come from {which}"]
    _write(recipe, output)
    return Migrated(output, None, tuple(said), awaited=awaited)


def _with_cache(
    cache: Cache, graph: ir.Model, raw: dict[str, Any], output: Path, said: list[str], stage: Stage | None
) -> Migrated:
    """Write the recipe with the old scales; with a `stage` they are weighed against new ones."""
    fitted = ranges_from(cache, graph, glance(Path(raw["reference"]["onnx"])))
    ranges = output.with_name(f"{output.stem}.ranges.json")
    fitted.ranges.write(ranges)
    kept = _recipe(_with_scales(raw, ranges, fitted.missing))
    _write(kept, output)
    said = [*told(cache, fitted), *said]
    said += doubts(cache, fitted.ranges, kept, graph, proven=stage is not None)
    weighed = weigh(kept, _recipe(raw | {"name": f"{output.stem}-recalibrated"}), stage) if stage is not None else None
    if weighed is None or weighed.keep == "old":
        return Migrated(output, ranges, tuple(said), weighed)
    beside = output.with_name(f"{output.stem}-recalibrated.toml")
    _write(weighed.recipe, beside)
    return Migrated(output, ranges, tuple(said), weighed, beside)


def _raw(old: OldBuild, cache: Cache | None, model: Path, output: Path, data: Path | None) -> dict[str, Any]:
    """A recipe's tables before the graph has said which layers it has; a place for images that are needed and not named."""
    asked = {**old.precision} if cache is None else {**old.precision, "int8": True, "fp8": False}
    wanting = asked.get("int8") or asked.get("fp8")
    images = data if data is not None or not wanting else output.parent / PLACE
    return {
        "name": output.stem,
        "notes": ["migrated from TensorRT 10 and before"],
        "reference": {"onnx": str(model.absolute())},
        "precision": asked,
        "calibration": {"data": str(images.absolute())} if images is not None else {},
        "build": old.build,
    }


def _with_scales(raw: dict[str, Any], ranges: Path, missing: list[str]) -> dict[str, Any]:
    """The same tables with the old scales, which need no images; layers that had none stay in floating point."""
    precision = raw["precision"] | AS_BEFORE | {"keep": [*raw["precision"].get("keep", []), *missing]}
    calibration = raw["calibration"] | {"ranges": str(ranges.absolute()), "method": "minmax"}
    return raw | {"precision": precision, "calibration": calibration}


def _write(recipe: Recipe, output: Path) -> None:
    write_atomically(output, recipe_toml(recipe, output.absolute().parent).encode())


def _recipe(raw: dict[str, Any]) -> Recipe:
    try:
        return left_open(msgspec.convert(raw, Recipe), raw["preprocess"])
    except msgspec.ValidationError as error:
        raise RecipeError(f"what was read makes no recipe: {error}") from error


def preprocess_of(model: Path, shapes: Sequence[OldShape] = ()) -> tuple[dict[str, Any], list[str]]:
    """Size, layout and color of a file's first input; the rest no file tells. What the file leaves open the old `shapes` tell,
    and that is said; a size that is open still is taken as the other, and none where both are. Raises GraphError, RecipeError."""
    first, said = next(iter(glance(model).inputs), None), list[str]()
    shape = [0] * 0
    if first is not None:
        sizes, said = sized(first, shapes, model)
        shape = [size or 0 for size in sizes]
    if len(shape) != 3 or not {1, 3} & {shape[0], shape[2]}:
        remedy = "An engine here takes images: an input of [N, C, H, W] or [N, H, W, C] with 1 or 3 channels"
        raise RecipeError(f"{model} takes no image: its first input is {first or 'not there'}", remedy=remedy)
    wide = shape[0] in (1, 3)
    height, width, channels = (shape[1], shape[2], shape[0]) if wide else (shape[0], shape[1], shape[2])
    found: dict[str, Any] = {"size": [height or width, width or height]} if height or width else {}
    if not wide:
        found["layout"] = "NHWC"
    return found | ({"color": "L", "mean": [0.5], "std": [0.5]} if channels == 1 else {}), said
