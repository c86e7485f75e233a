"""Shared weights: a constant that several layers read becomes one for each, so that a pass may change a layer and no other."""

from __future__ import annotations

import onnx_ir as ir

from toolkit.graph.edit import WEIGHTED, initializer


def unshare(model: ir.Model) -> tuple[str, ...]:
    """In place, for weights and biases of convolutions and matrix products; the names of those that were shared."""
    graph, found = model.graph, []
    for value in list(graph.initializers.values()):
        readers = [use for use in value.uses() if use.node.op_type in WEIGHTED and not use.node.domain and use.idx > 0]
        if len(tuple(value.uses())) < 2 or not readers or value.const_value is None:
            continue
        keep = 1 if len(readers) == len(tuple(value.uses())) else 0
        for use in readers[keep:]:
            copy = initializer(graph, value.name or "", value.const_value.numpy())
            use.node.replace_input_with(use.idx, copy)
        found.append(value.name or "")
    return tuple(found)
