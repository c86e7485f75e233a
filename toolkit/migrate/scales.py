"""Scales of a calibration cache as ranges of a graph, and what the cache and the graph do not have of one another."""

from __future__ import annotations

import onnx_ir as ir

from toolkit.calibration import Ranges, origin_of
from toolkit.calibration.ranges import TensorRange
from toolkit.errors import CalibrationError
from toolkit.graph.edges import origin
from toolkit.graph.scheme_cpu import watched
from toolkit.graph.scheme_tensorrt import tensorrt_edges
from toolkit.migrate.cache import Cache
from toolkit.migrate.old import shortened
from toolkit.recipe import Recipe

SYMMETRIC = 127
LIKELY = (  # how far the input reached, and what preprocessing does so
    (0.4, 1.05, "pixels / 255, or from -1 to 1"),
    (1.9, 2.75, "ImageNet's mean and std behind pixels / 255"),
    (90.0, 160.0, "pixels less a mean, not scaled"),
    (200.0, 256.0, "pixels as they are, 0 to 255"),
)


def ranges_from(cache: Cache, graph: ir.Model) -> tuple[Ranges, list[str], list[str]]:
    """The cache's scales as ranges of a graph; the layers that read a tensor without one, which TensorRT left in
    floating point; and the cache's tensors that the graph has not. Raises CalibrationError where none fits."""
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
    notes: tuple[str, ...] = (f"from {cache.source}",)
    if without:
        notes += (f"no scale was in the cache for {', '.join(without[:5])}{' and others' if len(without) > 5 else ''}",)
    found = Ranges(origin=origin_of(graph, list(tensors)), images=0, tensors=tensors, notes=notes)
    return found, list(dict.fromkeys(missing)), unknown


def _range(threshold: float, signed: bool) -> TensorRange:
    """A tensor whose every method gives the same threshold: the cache's."""
    methods = dict.fromkeys(("minmax", "entropy", "mse", "percentile-99.9", "percentile-99.99", "percentile-99.999"), threshold)
    return TensorRange(min=-threshold if signed else 0.0, max=threshold, values=0, zeros=0, thresholds=methods)


def told(cache: Cache, found: Ranges, missing: list[str], unknown: list[str]) -> list[str]:
    taken = sum(tensor.max > 0 for tensor in found.tensors.values())
    said = [f"{taken} scales taken over from {cache.source}"]
    if missing:
        said.append(f"in floating point, because they have no scale, as in TensorRT: {', '.join(missing)}")
    if unknown:
        said.append(f"in the cache and not in the graph (fused, or another export): {shortened(unknown)}")
    return said


def doubtful_input(cache: Cache, recipe: Recipe, graph: ir.Model) -> list[str]:
    """A remark where the recipe's preprocessing reaches elsewhere than the old pipeline's did, as the input's scale says.

    A calibrator may clip the largest values a little, and the brightest picture may have been missing: from 0.4 to 1.05 of what
    preprocessing can give, nothing is said.
    """
    how = recipe.preprocess
    reach = SYMMETRIC * cache.scales.get(graph.graph.inputs[0].name or "", 0.0)
    ends = [(pixel * how.scale - m) / s for pixel in (0, 255) for m, s in zip(how.mean, how.std, strict=True)]
    largest = max(map(abs, ends))
    if reach <= 0 or 0.4 * largest <= reach <= 1.05 * largest:
        return []
    likely = next((what for low, high, what in LIKELY if low <= reach <= high), "see the old code")
    what = f"WARNING: the old scale of the input reaches to {reach:.3g}, and [preprocess] gives values up to {largest:.3g}"
    return [f"{what}: the old pipeline had another mean, std or scale (likely: {likely})"]
