"""Where the batch goes: the dimension of each value that carries it, followed through a graph whose shapes are known."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import attribute, constant

Shapes = dict[ir.Value, list[int]]


class Place(NamedTuple):
    """The batch is dimension `axis`, or a factor of it: that dimension is `outer` times the batch times the rest."""

    axis: int
    outer: int


def follow(node: ir.Node, places: dict[ir.Value, Place], shapes: Shapes, batch: int) -> Place | None:
    """Where a node's first output has the batch; None where it has none, or it cannot be told."""
    carrier = next((value for value in node.inputs if value in places), None)
    if carrier is None or node.domain or node.op_type in ("Shape", "Size"):
        return None
    place, given, made = places[carrier], shapes.get(carrier), shapes.get(node.outputs[0])
    axis = place.axis
    if given is None or made is None:
        return place
    if node.op_type == "Transpose":
        perm = list(attribute(node, "perm", None) or range(len(given))[::-1])
        return place._replace(axis=perm.index(axis))
    if node.op_type == "Unsqueeze":
        new = sorted(int(dim) % len(made) for dim in _axes(node))
        return place._replace(axis=[dim for dim in range(len(made)) if dim not in new][axis])
    if node.op_type == "Squeeze":
        gone = [int(dim) % len(given) for dim in _axes(node)] or [dim for dim, size in enumerate(given) if size == 1]
        return None if axis in gone else place._replace(axis=axis - sum(dim < axis for dim in gone))
    if node.op_type in ("Reshape", "Flatten"):
        return _reshaped(place, given, made, batch)
    if node.op_type == "Gather":
        at = attribute(node, "axis", 0) % len(given)
        moved = axis + len(made) - len(given) if at < axis else axis
        return place._replace(axis=moved) if at != axis and node.inputs[0] is carrier else None
    if node.op_type.startswith(("Reduce", "Arg")):
        gone = [dim % len(given) for dim in _axes(node)] or list(range(len(given)))
        lost = sum(dim < axis for dim in gone) if len(made) < len(given) else 0
        return (
            None
            if axis in gone and "axes" not in node.attributes and len(made) < len(given)
            else place._replace(axis=axis - lost)
        )
    return place._replace(axis=axis + max(0, len(made) - len(given)))  # operands are aligned at their last dimensions


def _axes(node: ir.Node) -> list[Any]:
    for name in ("axes", "axis"):
        if name in node.attributes:
            return list(np.atleast_1d(np.asarray(node.attributes[name].value)))
    listed = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return [] if listed is None else list(np.atleast_1d(listed))


def _reshaped(place: Place, given: list[int], made: list[int], batch: int) -> Place | None:
    """The order of values stays, so what lies outside of the batch does: `before` values.

    Where the batch can be a dimension of its own, it is. Else it joins the dimension behind it (heads of attention), or, in a
    matrix, the one before it (rows).
    """
    before = math.prod(given[: place.axis]) * place.outer
    own = [j for j in range(len(made)) if math.prod(made[:j]) == before and made[j] == batch]
    if own:
        return Place(own[0], 1)
    if len(made) == 2 and made[0] % (before * batch) == 0:
        return Place(0, before)
    for j in range(len(made)):
        outer, rest = divmod(before, math.prod(made[:j]) or 1)
        at_an_edge = any(math.prod(made[:k]) == before for k in range(len(made)))
        if not rest and outer and made[j] % (outer * batch) == 0 and (outer == 1 or not at_an_edge):
            return Place(j, outer)
    return None
