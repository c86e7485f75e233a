"""Places: where else Q/DQ pairs may stand in scheme `tensorrt`. What a place brings no count of bytes tells: it is measured."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from toolkit.graph.edit import matches, weight_of
from toolkit.graph.fp8 import first_layers
from toolkit.graph.scheme_tensorrt import AVERAGES, tensorrt_edges
from toolkit.recipe import Precision


def other_places(graph: ir.Model, precision: Precision) -> dict[str, dict[str, Any]]:
    """What to call it -> the fields of `[precision]` to change, for each place that `graph` has and `precision` leaves."""
    edges = tensorrt_edges(graph, precision.keep)
    sums = tuple(dict.fromkeys(node.name or "" for edge in edges for node in edge.readers or () if weight_of(node) is None))
    weighted = [node.name or "" for node in graph.graph if weight_of(node) is not None]
    places: dict[str, tuple[str, ...]] = {
        "sums bare": sums,
        "first layer bare": tuple(name for name in first_layers(graph) if not matches(name, precision.keep)),
        "last product bare": tuple(name for name in weighted[-1:] if not matches(name, precision.keep)),
    }
    found: dict[str, dict[str, Any]] = {name: {"keep": (*precision.keep, *kept)} for name, kept in places.items() if kept}
    if not precision.pools and any(node.op_type in AVERAGES for node in graph.graph):
        found["pairs at pools"] = {"pools": True}
    return found
