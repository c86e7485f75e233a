"""Budget: what one image may need in memory on its way through a foreign graph, counted from shapes before anything runs."""

from __future__ import annotations

import math
from pathlib import Path

import onnx_ir as ir

from toolkit.errors import GraphError
from toolkit.graph.load.constants import GROWERS, called, width

MOST_ALIVE = 4 << 30  # bytes of activations at one time, for one image


def check_budget(model: ir.Model, path: Path) -> bool:
    """Whether every tensor's size is known. Raises GraphError above the budget; it names the node where the peak is."""
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(model.graph):
        for value in node.inputs:
            if value is not None and value.producer() is not None:
                last[value] = index
    alive, known, ends = 0, True, dict[int, int]()
    for index, node in enumerate(model.graph):
        for output in node.outputs:
            size = _bytes(output)
            known = known and (size is not None or node.op_type not in GROWERS)
            alive += size or 0
            end = last.get(output, index)
            ends[end] = ends.get(end, 0) + (size or 0)
        if alive > MOST_ALIVE:
            what = f"{path}: at {called(node)} one image would need {alive / 1e9:.3g} GB of memory"
            raise GraphError(
                what, remedy=f"An image may need {MOST_ALIVE >> 30} GiB; look at the shape that this operator writes"
            )
        alive -= ends.pop(index, 0)
    return known


def _bytes(value: ir.Value) -> int | None:
    """Of one image; symbolic dimensions count as 1, which the batch is."""
    if value.shape is None:
        return None
    return math.prod(dim if isinstance(dim, int) else 1 for dim in value.shape) * width(value, 32) // 8
