"""Folds what inference does not need: BatchNorm into convolutions, Dropout and Identity away, pooling into its own operator.

Rules, in order, until none applies:
1. Conv -> BatchNormalization becomes Conv: W' = W * g / sqrt(v + e), b' = (b - m) * g / sqrt(v + e) + beta (Jacob et al., 2018,
   arXiv:1712.05877, section 3.2), computed in float64.
2. Dropout and Identity in inference are their input.
3. ReduceMean over the spatial axes becomes GlobalAveragePool, and a Reshape or Squeeze of [N, C, 1, 1] to [N, C] becomes
   Flatten: the forms that every backend has a kernel for, in INT8 too, and that hold for any N.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from toolkit.errors import GraphError
from toolkit.graph.edit import attribute, constant, finish, initializer, insert_before, make, sole_consumer


def fold(model: ir.Model) -> ir.Model:
    """A copy with the rules above applied; tensor names stay those of the values that remain. Raises GraphError."""
    model = model.clone()
    for node in list(model.graph):
        if node.domain:
            continue
        if node.op_type == "BatchNormalization":
            _fold_batchnorm(node)
        elif node.op_type in ("Identity", "Dropout"):
            _bypass(node)
        elif node.op_type == "ReduceMean" and _is_spatial_mean(node):
            _replace(node, make("GlobalAveragePool", [node.inputs[0]], node.name or ""))
        elif node.op_type in ("Reshape", "Squeeze") and _is_flatten(node):
            _replace(node, make("Flatten", [node.inputs[0]], node.name or "", axis=1))
    return finish(model)


def _fold_batchnorm(norm: ir.Node) -> None:
    """Rule 1. A BatchNorm that no convolution precedes becomes Mul and Add."""
    x, *statistics = norm.inputs
    gamma, beta, mean, variance = (constant(value) for value in statistics[:4])
    if x is None or gamma is None or beta is None or mean is None or variance is None:
        raise GraphError(f"BatchNorm '{norm.name}' needs its statistics as constants", remedy="Export in inference mode")
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + attribute(norm, "epsilon", 1e-5))
    shift = beta - mean * scale
    conv = x.producer()
    weight = constant(conv.inputs[1]) if conv is not None and conv.op_type == "Conv" else None
    assert norm.graph is not None
    if conv is None or weight is None or sole_consumer(x) is not norm:
        rank = len(x.shape) if x.shape is not None else 4
        columns = (1, -1) + (1,) * (rank - 2)
        factor = initializer(norm.graph, f"{norm.name}.scale", scale.astype(np.float32).reshape(columns))
        offset = initializer(norm.graph, f"{norm.name}.shift", shift.astype(np.float32).reshape(columns))
        product = make("Mul", [x, factor], f"{norm.name}.mul")
        insert_before(norm, product)
        _replace(norm, make("Add", [product.outputs[0], offset], norm.name or ""))
        return
    bias = constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
    folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    shift = shift if bias is None else shift + bias * scale
    name = conv.inputs[1].name or conv.name or ""  # type: ignore[union-attr]
    stem = name.removesuffix(".weight")
    conv.resize_inputs(3)
    conv.replace_input_with(1, initializer(norm.graph, name, folded.astype(np.float32)))
    conv.replace_input_with(2, initializer(norm.graph, f"{stem}.bias", shift.astype(np.float32)))
    _bypass(norm)


def _bypass(node: ir.Node) -> None:
    """Rule 2: readers of the node's output read its input."""
    source, output = node.inputs[0], node.outputs[0]
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
