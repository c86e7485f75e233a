"""Scheme `tensorrt`: where TensorRT wants Q/DQ pairs.

1. Each input of a convolution or a matrix product has a pair, its result has none: TensorRT fuses the next pair into it.
2. At the sum of a residual block, the shortcut's input has a pair; the edge from the block's last convolution stays bare, so that
   convolution, sum and Relu become one kernel. The next convolution and the next shortcut share the pair of the sum's result.
3. Everything is symmetric int8 (zero point 0).
4. An average over the picture reads what it did before, unless `precision.pools` asks for a pair there too.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeGuard

import onnx_ir as ir

from toolkit.graph.edges import Edge
from toolkit.graph.edit import constant, matches, sole_consumer, weight_of

AVERAGES = ("GlobalAveragePool", "AveragePool", "ReduceMean")


def tensorrt_edges(model: ir.Model, keep: Collection[str], pools: bool = False) -> list[Edge]:
    """The edges of scheme `tensorrt`, in graph order; layers in `keep` read what they read before."""
    depth: dict[ir.Value | None, int] = {}
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in model.graph:
        for output in node.outputs:
            depth[output] = 1 + max((depth.get(value, 0) for value in node.inputs), default=0)
        if matches(node.name, keep):
            continue
        if weight_of(node) is not None and node.inputs[0] is not None:
            readers.setdefault(node.inputs[0], []).append(node)
        elif (shortcut := _shortcut(node, depth)) is not None:
            readers.setdefault(shortcut, []).append(node)
        elif pools and node.op_type in AVERAGES and _is_picture(node.inputs[0]):
            readers.setdefault(node.inputs[0], []).append(node)
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    return [Edge(value, tuple(readers[value])) for value in values if value in readers]


def _shortcut(node: ir.Node, depth: dict[ir.Value | None, int]) -> ir.Value | None:
    """The operand of a residual sum that is not the block's last convolution: of two convolutions, the shallower one."""
    if node.op_type != "Add" or node.domain or any(value is None or constant(value) is not None for value in node.inputs):
        return None
    left, right = node.inputs
    branches = [value for value in (left, right) if value is not None and _is_bare_conv(value)]
    if not branches:
        return None
    branch = max(branches, key=lambda value: depth.get(value, 0))
    return right if branch is left else left


def _is_picture(value: ir.Value | None) -> TypeGuard[ir.Value]:
    """Whether it has an image's four dimensions: other means, such as a LayerNorm's, are no pool."""
    return value is not None and value.shape is not None and len(value.shape) == 4


def _is_bare_conv(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Conv" and sole_consumer(value) is not None
