"""Folds what inference does not need: BatchNorm into convolutions, Dropout and Identity away, pooling into its own operator.

Rules, in graph order:
1. Conv -> BatchNormalization, Mul or Add with one constant a channel becomes Conv: with y = v * scale + shift, W' = W * scale and
   b' = b * scale + shift, computed in float64. BatchNorm has scale = g / sqrt(v + e), shift = beta - m * scale (Jacob et al.,
   2018, arXiv:1712.05877, section 3.2). A BatchNorm that no convolution precedes becomes Mul and Add.
2. Dropout and Identity in inference are their input.
3. ReduceMean over the spatial axes becomes GlobalAveragePool, a Reshape or Squeeze of [N, C, 1, 1] to [N, C] becomes Flatten, and
   Sum of two becomes Add: the forms that every backend has a kernel for, in INT8 too, and that hold for any N.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from toolkit.errors import GraphError
from toolkit.graph.edit import attribute, constant, finish, initializer, insert_before, make, sole_consumer
from toolkit.types import Array


def fold(model: ir.Model) -> ir.Model:
    """A copy with the rules above applied; tensor names stay those of the values that remain. Raises GraphError."""
    model = model.clone()
    for node in list(model.graph):
        if node.domain:
            continue
        affine = _affine(node)
        if affine is not None:
            _fold_affine(node, *affine)
        elif node.op_type in ("Identity", "Dropout"):
            _bypass(node, node.inputs[0])
        elif node.op_type == "ReduceMean" and _is_spatial_mean(node):
            _replace(node, make("GlobalAveragePool", [node.inputs[0]], node.name or ""))
        elif node.op_type in ("Reshape", "Squeeze") and _is_flatten(node):
            _replace(node, make("Flatten", [node.inputs[0]], node.name or "", axis=1))
        elif node.op_type == "Sum" and len(node.inputs) == 2:
            _replace(node, make("Add", node.inputs, node.name or ""))
    return finish(model)


def _affine(node: ir.Node) -> tuple[ir.Value, Array, Array] | None:
    """(x, scale, shift), each float64 [C], where the node computes x * scale + shift a channel; else None."""
    if node.op_type == "BatchNormalization":
        x, *statistics = node.inputs
        gamma, beta, mean, variance = (constant(value) for value in statistics[:4])
        if x is None or gamma is None or beta is None or mean is None or variance is None:
            raise GraphError(f"BatchNorm '{node.name}' needs its statistics as constants", remedy="Export in inference mode")
        scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + attribute(node, "epsilon", 1e-5))
        return x, scale, beta - mean * scale
    if node.op_type not in ("Mul", "Add"):
        return None
    for x, operand in (node.inputs, node.inputs[::-1]):
        array = constant(operand)
        conv = x.producer() if x is not None else None
        weight = constant(conv.inputs[1]) if conv is not None and conv.op_type == "Conv" else None
        if x is None or array is None or weight is None or not _is_per_channel(array, len(weight), weight.ndim):
            continue
        vector = np.broadcast_to(array.astype(np.float64).ravel(), len(weight))
        return (x, vector, np.zeros(len(weight))) if node.op_type == "Mul" else (x, np.ones(len(weight)), vector)
    return None


def _is_per_channel(array: Array, channels: int, rank: int) -> bool:
    if array.ndim > rank:  # the result is of more dimensions
        return False
    shape = (1,) * (rank - array.ndim) + array.shape
    return array.size == 1 or shape[1] == channels == array.size


def _fold_affine(node: ir.Node, x: ir.Value, scale: Array, shift: Array) -> None:
    """Rule 1."""
    conv, graph = x.producer(), node.graph
    assert graph is not None
    weight = constant(conv.inputs[1]) if conv is not None and conv.op_type == "Conv" and not conv.domain else None
    given = conv.inputs[2] if conv is not None and len(conv.inputs) > 2 else None
    bias = constant(given)
    if conv is None or weight is None or (given is not None and bias is None) or sole_consumer(x) is not node:
        if node.op_type == "BatchNormalization":
            _split_batchnorm(node, x, scale, shift)
        return
    name = (conv.inputs[1].name if conv.inputs[1] is not None else None) or conv.name or ""
    stem = name.removesuffix(".weight")
    if (scale != 1).any():
        folded = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
        conv.replace_input_with(1, initializer(graph, name, folded))
    total = shift if bias is None else bias * scale + shift
    conv.resize_inputs(3)
    conv.replace_input_with(2, initializer(graph, f"{stem}.bias", total.astype(np.float32)))
    _bypass(node, x)


def _split_batchnorm(norm: ir.Node, x: ir.Value, scale: Array, shift: Array) -> None:
    graph = norm.graph
    assert graph is not None
    rank = len(x.shape) if x.shape is not None else 4
    columns = (1, -1) + (1,) * (rank - 2)
    factor = initializer(graph, f"{norm.name}.scale", scale.astype(np.float32).reshape(columns))
    offset = initializer(graph, f"{norm.name}.shift", shift.astype(np.float32).reshape(columns))
    product = make("Mul", [x, factor], f"{norm.name}.mul")
    insert_before(norm, product)
    _replace(norm, make("Add", [product.outputs[0], offset], norm.name or ""))


def _bypass(node: ir.Node, source: ir.Value | None) -> None:
    """Rule 2: readers of the node's output read `source` instead."""
    output = node.outputs[0]
    assert source is not None
    assert node.graph is not None
    if output.is_graph_output():
        if source.is_graph_input() or source.is_initializer() or source.is_graph_output():
            return  # a graph must not hand out its own input: the Identity stays
        source.name, output.name = output.name, f"{output.name}.bypassed"
    ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)


def _replace(node: ir.Node, new: ir.Node) -> None:
    """Put `new` where `node` stood, under the same names."""
    old, fresh = node.outputs[0], new.outputs[0]
    fresh.name, fresh.shape, fresh.type = old.name, old.shape, old.type
    insert_before(node, new)
    ir.convenience.replace_all_uses_with(old, fresh, replace_graph_outputs=True)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _is_spatial_mean(node: ir.Node) -> bool:
    x = node.inputs[0]
    if x is None or x.shape is None or len(x.shape) != 4 or not attribute(node, "keepdims", 1):
        return False
    axes = attribute(node, "axes", None)
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = list(given) if given is not None else axes
    return axes is not None and sorted(int(a) % 4 for a in axes) == [2, 3]


def _is_flatten(node: ir.Node) -> bool:
    x, output = node.inputs[0], node.outputs[0]
    if x is None or x.shape is None or output.shape is None or len(x.shape) != 4 or len(output.shape) != 2:
        return False
    return tuple(x.shape[2:]) == (1, 1) and x.shape[1] == output.shape[1]
