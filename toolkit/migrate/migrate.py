"""Migrate: what TensorRT 10 was given -> a recipe, and ranges with the scales of its calibration cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import onnx_ir as ir
from google.protobuf.message import DecodeError

from toolkit.calibration import Ranges, origin_of
from toolkit.calibration.ranges import TensorRange
from toolkit.disk.files import write_atomically
from toolkit.errors import CalibrationError, RecipeError
from toolkit.graph.edges import origin
from toolkit.graph.scheme_cpu import watched
from toolkit.graph.scheme_tensorrt import tensorrt_edges
from toolkit.migrate.cache import Cache, is_cache, read_cache
from toolkit.migrate.trtexec import Line, read_line
from toolkit.recipe import Recipe
from toolkit.reference.source import open_source
from toolkit.tuning.result import recipe_toml

SYMMETRIC = 127


class Migrated(NamedTuple):
    """Where the recipe and the ranges were written, and what the reader must know."""

    recipe: Path
    ranges: Path | None
    said: tuple[str, ...]


def migrate(sources: list[str], output: Path, onnx: Path | None = None, data: Path | None = None) -> Migrated:
    """`sources` are calibration caches and trtexec lines (or files that hold one), `data` images to judge by. Writes `output`
    and its ranges beside it.

    Raises RecipeError where no ONNX file is named, CalibrationError for a cache that is damaged or of another network.
    """
    line, cache = _read(sources)
    model = onnx or (Path(line.onnx) if line.onnx else None)
    if model is None:
        raise RecipeError("nothing names the ONNX file", remedy="Add --onnx MODEL.onnx, or a trtexec line with --onnx=")
    said = list(line.said)
    precision: dict[str, Any] = dict(line.precision)
    raw: dict[str, Any] = {
        "name": output.stem,
        "notes": ["migrated from TensorRT 10 and before"],
        "reference": {"onnx": str(model.absolute())},
        "preprocess": preprocess_of(model),
        "build": line.build,
    }
    ranges, calibration = None, {"data": str((data or output.parent / "calibration-images").absolute())}
    said.append("[preprocess] has only the size: set mean, std and scale as the old pipeline had them; no file says")
    if data is None:
        said.append("no images were named: set `calibration.data`")
    if cache is not None:
        precision |= {"int8": True, "equalize": "none", "weights": "absmax", "rounding": "nearest"}
        precision["bias_correction"] = False
        ranges = output.with_name(f"{output.stem}.ranges.json")
        found, missing, unknown = ranges_from(cache, _recipe(raw))
        found.write(ranges)
        calibration |= {"ranges": str(ranges.absolute()), "method": "minmax"}
        precision["keep"] = [*precision.get("keep", []), *missing]
        said += _told(cache, found, missing, unknown)
    elif precision.get("int8") or precision.get("fp8"):
        said.append("no calibration cache: the ranges come from the images")
    recipe = _recipe({**raw, "precision": precision, "calibration": calibration})
    write_atomically(output, recipe_toml(recipe, output.absolute().parent).encode())
    return Migrated(output, ranges, tuple(said))


def _recipe(raw: dict[str, Any]) -> Recipe:
    try:
        return msgspec.convert(raw, Recipe)
    except msgspec.ValidationError as error:
        raise RecipeError(f"what was read makes no recipe: {error}") from error


def _read(sources: list[str]) -> tuple[Line, Cache | None]:
    line, cache = Line(onnx=None, cache=None, precision={}, build={"target": "tensorrt"}, said=()), None
    for source in sources:
        path = Path(source) if "\n" not in source and len(source) < 1024 else None
        if path is None or not path.is_file():
            line = read_line(source)
        elif is_cache(path.read_bytes()):
            cache = read_cache(path)
        else:
            line = read_line(path.read_text(encoding="utf-8", errors="replace"))
    if cache is None and line.cache and Path(line.cache).is_file():
        cache = read_cache(Path(line.cache))
    return line, cache


def preprocess_of(model: Path) -> dict[str, Any]:
    """Size, layout and color of a file's first input; the rest, such as the mean, no file tells. Raises RecipeError."""
    try:
        value = ir.load(model).graph.inputs[0]
        shape = [size if isinstance(size, int) else 0 for size in value.shape or ()][1:]
    except (OSError, ValueError, IndexError, DecodeError) as error:
        raise RecipeError(f"the ONNX file {model} cannot be read: {error}") from error
    if len(shape) != 3 or not {1, 3} & {shape[0], shape[2]}:
        raise RecipeError(f"input '{value.name}' of {model} takes no image: {list(value.shape or ())}")
    wide = shape[0] in (1, 3)
    height, width, channels = (shape[1], shape[2], shape[0]) if wide else (shape[0], shape[1], shape[2])
    found: dict[str, Any] = {"size": [height or 224, width or 224]}
    if not wide:
        found["layout"] = "NHWC"
    return found | ({"color": "L", "mean": [0.5], "std": [0.5]} if channels == 1 else {})


def ranges_from(cache: Cache, recipe: Recipe) -> tuple[Ranges, list[str], list[str]]:
    """The cache's scales as ranges of the recipe's graph; the layers that read a tensor without one, which TensorRT left in
    floating point; and the cache's tensors that the graph has not. Raises CalibrationError where none fits."""
    graph = open_source(recipe).graph
    edges = tensorrt_edges(graph, ())
    wanted = dict.fromkeys(watched(graph))
    scales = {name: cache.scales[name] for name in wanted if name in cache.scales}
    for edge in edges:  # a pool's own scale stands for what the pool reads
        scales.setdefault(origin(edge.value).name or "", cache.scales.get(edge.value.name or "", 0.0))
    fits = {name: scale for name, scale in scales.items() if scale > 0}
    names = {value.name for node in graph.graph for value in node.outputs} | {value.name for value in graph.graph.inputs}
    unknown = sorted(cache.scales.keys() - names)
    if not fits:
        some = ", ".join(list(cache.scales)[:3])
        raise CalibrationError(f"the cache belongs to another network: it has {some}; none of its tensors is in the ONNX file")
    signed = {value.name for value in graph.graph.inputs}
    signed |= {v.name for node in graph.graph if node.op_type not in ("Relu", "MaxPool", "Sigmoid") for v in node.outputs}
    tensors = {name: _range(fits.get(name, 0.0) * SYMMETRIC, name in signed) for name in dict.fromkeys([*wanted, *fits])}
    missing = [n.name or "" for edge in edges if (origin(edge.value).name or "") not in fits for n in edge.readers or ()]
    without = [name for name in wanted if name not in fits]
    notes: tuple[str, ...] = (f"from a calibration cache of TensorRT {cache.version} ({cache.calibrator})",)
    if without:
        notes += (f"no scale was in the cache for {', '.join(without[:5])}{' and others' if len(without) > 5 else ''}",)
    found = Ranges(origin=origin_of(graph, list(tensors)), images=0, tensors=tensors, notes=notes)
    return found, list(dict.fromkeys(missing)), unknown


def _range(threshold: float, signed: bool) -> TensorRange:
    """A tensor whose every method gives the same threshold: the cache's."""
    methods = dict.fromkeys(("minmax", "entropy", "mse", "percentile-99.9", "percentile-99.99", "percentile-99.999"), threshold)
    return TensorRange(min=-threshold if signed else 0.0, max=threshold, values=0, zeros=0, thresholds=methods)


def _told(cache: Cache, found: Ranges, missing: list[str], unknown: list[str]) -> list[str]:
    taken = sum(tensor.max > 0 for tensor in found.tensors.values())
    said = [f"{taken} scales taken over from TensorRT {cache.version}'s {cache.calibrator} ({cache.method})"]
    if missing:
        said.append(f"in floating point, because they have no scale, as in TensorRT: {', '.join(missing)}")
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        said.append(f"in the cache and not in the graph (fused, or another export): {', '.join(unknown[:5])}{more}")
    return said
