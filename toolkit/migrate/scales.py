"""Scales of a calibration cache as ranges of a graph, and what the cache and the graph do not have of one another."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

import onnx_ir as ir

from toolkit.calibration import Ranges, origin_of
from toolkit.calibration.ranges import TensorRange
from toolkit.errors import CalibrationError
from toolkit.graph.edges import origin
from toolkit.graph.load.glance import Glance
from toolkit.graph.scheme_cpu import watched
from toolkit.graph.scheme_tensorrt import tensorrt_edges
from toolkit.migrate.cache import Cache
from toolkit.migrate.old import shortened

SYMMETRIC = 127
# Layers without a name, as TensorRT calls them; its parser's own; weights that torch counts through, another number each export.
MADE = re.compile(r"\(Unnamed Layer\* \d+\)|ONNXTRT_|onnx::\w+_\d+_output$")


class Fitted(NamedTuple):
    """A cache's scales as ranges of a graph, and what the cache and the graph do not have of one another.

    `missing`: layers that read a tensor without a scale, which TensorRT left in floating point; `unneeded`: how many scales are
    of constants, or of tensors that a build makes beside the file's; `unread`: how many of tensors that are not rounded to INT8
    here; `unknown`: tensors of the cache that the file has not.
    """

    ranges: Ranges
    missing: list[str]
    unneeded: int
    unread: int
    unknown: list[str]


def ranges_from(cache: Cache, graph: ir.Model, file: Glance) -> Fitted:
    """The cache's scales for `graph`, which was read from `file`. Raises CalibrationError where none fits."""
    edges = tensorrt_edges(graph, ())
    wanted = dict.fromkeys(watched(graph))
    scales = {name: cache.scales[name] for name in wanted if name in cache.scales}
    for edge in edges:  # a pool's own scale stands for what the pool reads
        scales.setdefault(origin(edge.value).name or "", cache.scales.get(edge.value.name or "", 0.0))
    fits = {name: scale for name, scale in scales.items() if scale > 0}
    read = wanted.keys() | {edge.value.name or "" for edge in edges}
    unneeded = {name for name in cache.scales.keys() - read if _is_unneeded(name, file)}
    unknown = sorted(cache.scales.keys() - read - unneeded - file.made)
    unread = len(cache.scales.keys() - read - unneeded) - len(unknown)
    if not fits:
        raise _nothing(cache, read, len(unknown))
    signed = {value.name for value in graph.graph.inputs}
    signed |= {v.name for node in graph.graph if node.op_type not in ("Relu", "MaxPool", "Sigmoid") for v in node.outputs}
    tensors = {name: _range(fits.get(name, 0.0) * SYMMETRIC, name in signed) for name in dict.fromkeys([*wanted, *fits])}
    missing = [n.name or "" for edge in edges if (origin(edge.value).name or "") not in fits for n in edge.readers or ()]
    without = [name for name in wanted if name not in fits]
    notes: tuple[str, ...] = (f"from {cache.source}",)
    if without:
        notes += (f"no scale was in the cache for {', '.join(without[:5])}{' and others' if len(without) > 5 else ''}",)
    found = Ranges(origin=origin_of(graph, list(tensors)), images=0, tensors=tensors, notes=notes)
    return Fitted(found, list(dict.fromkeys(missing)), len(unneeded), unread, unknown)


def _nothing(cache: Cache, read: Collection[str], unknown: int) -> CalibrationError:
    """Why not a single scale fits."""
    some = shortened([name[:60] for name in cache.scales], 3)
    if not cache.scales:
        return CalibrationError("the cache holds no scale", remedy="Give the whole file that TensorRT wrote")
    if any(name in read for name in cache.scales):
        return CalibrationError(f"every scale that INT8 layers need is 0 in the cache: it has {some}", remedy="Calibrate again")
    if unknown == len(cache.scales):
        return CalibrationError(f"the cache belongs to another network: it has {some}; none of its tensors is in the ONNX file")
    return CalibrationError(f"the cache has no scale of what INT8 layers read: it has {some}", remedy="Calibrate again")


def _is_unneeded(name: str, file: Glance) -> bool:
    """Whether a scale is of a constant, whose values are known, or of a tensor that TensorRT or its parser made: it is called
    after its layer, `LAYER_output`, and constants are layers."""
    layer = name.removesuffix("_output")
    return name in file.constants or MADE.match(name) is not None or (layer != name and layer in file.constants | file.made)


def _range(threshold: float, signed: bool) -> TensorRange:
    """A tensor whose every method gives the same threshold: the cache's."""
    methods = dict.fromkeys(("minmax", "entropy", "mse", "percentile-99.9", "percentile-99.99", "percentile-99.999"), threshold)
    return TensorRange(min=-threshold if signed else 0.0, max=threshold, values=0, zeros=0, thresholds=methods)


def told(cache: Cache, fitted: Fitted) -> list[str]:
    taken = sum(tensor.max > 0 for tensor in fitted.ranges.tensors.values())
    said = [f"{taken} scales taken over from {cache.source}"]
    if fitted.missing:
        said.append(f"in floating point, because they have no scale, as in TensorRT: {shortened(fitted.missing)}")
    if fitted.unneeded:
        said.append(f"not needed, scales of constants or of tensors that TensorRT made beside the file's: {fitted.unneeded}")
    if fitted.unread:
        said.append(f"not used, scales of tensors that no INT8 layer reads here, such as sums and attention: {fitted.unread}")
    if fitted.unknown:
        said.append(f"in the cache and not in the file (another export?): {shortened([name[:60] for name in fitted.unknown])}")
    return said
