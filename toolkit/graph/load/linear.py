"""Linear: what scikit-learn's converter puts behind a network and ONNX's own operators can say as well -> those. In place.

1. LinearClassifier -> Gemm and its post transform, where it has coefficients for each of its classes and nothing reads its label.
2. Scaler -> Sub and Mul. Normalizer -> Div by the sum of magnitudes (L1), the root of that of squares (L2) or the largest (MAX).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import attribute, initializer, insert_before, make

DOMAIN = "ai.onnx.ml"
ENDS = {"NONE": "", "SOFTMAX": "Softmax", "LOGISTIC": "Sigmoid"}
AXES_AS_INPUT = 18  # the opset
LENGTHS = {"L1": "ReduceL1", "L2": "ReduceL2", "MAX": "ReduceMax"}


def to_standard(model: ir.Model) -> None:
    """Rules 1 and 2; what does not fit them stays, and is refused by name."""
    ways: dict[str, Callable[[ir.Node, ir.Model], list[ir.Node]]]
    ways = {"LinearClassifier": _classifier, "Scaler": _scaler, "Normalizer": _normalizer}
    graph = model.graph
    for node in [node for node in graph if node.domain == DOMAIN and node.op_type in ways]:
        new = ways[node.op_type](node, model)
        if not new:
            continue
        insert_before(node, new)
        old = node.outputs[-1]
        name, end = old.name, new[-1].outputs[0]
        ir.convenience.replace_all_uses_with(old, end, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        end.name = name


def _classifier(node: ir.Node, model: ir.Model) -> list[ir.Node]:
    graph, label, name = model.graph, node.outputs[0], node.name or node.outputs[1].name or ""
    shifts = np.asarray(attribute(node, "intercepts", ()), np.float32)
    rates = np.asarray(attribute(node, "coefficients", ()), np.float32)
    classes = len(attribute(node, "classlabels_ints", ()) or attribute(node, "classlabels_strings", ()))
    end = attribute(node, "post_transform", "NONE")
    if label.uses() or label.is_graph_output() or end not in ENDS or classes != shifts.size or rates.size % (classes or 1):
        return []
    weights = initializer(graph, f"{name}.coefficients", rates.reshape(classes, -1))
    layer = make("Gemm", [node.inputs[0], weights, initializer(graph, f"{name}.intercepts", shifts)], f"{name}.gemm", transB=1)
    if not ENDS[end]:
        return [layer]
    keys: dict[str, Any] = {"axis": 1} if end == "SOFTMAX" else {}
    return [layer, make(ENDS[end], layer.outputs, f"{name}.{ENDS[end].lower()}", **keys)]


def _scaler(node: ir.Node, model: ir.Model) -> list[ir.Node]:
    graph, name = model.graph, node.name or node.outputs[0].name or ""
    shift, rate = (np.asarray(attribute(node, key, (other,)), np.float32) for key, other in (("offset", 0.0), ("scale", 1.0)))
    less = make("Sub", [node.inputs[0], initializer(graph, f"{name}.offset", shift)], f"{name}.sub")
    return [less, make("Mul", [less.outputs[0], initializer(graph, f"{name}.scale", rate)], f"{name}.mul")]


def _normalizer(node: ir.Node, model: ir.Model) -> list[ir.Node]:
    name, operator, value = node.name or node.outputs[0].name or "", LENGTHS[attribute(node, "norm", "MAX")], node.inputs[0]
    if model.opset_imports.get("", 0) < AXES_AS_INPUT:
        length = make(operator, [value], f"{name}.length", axes=[1], keepdims=1)
    else:
        axes = initializer(model.graph, f"{name}.axes", np.array([1], np.int64))
        length = make(operator, [value, axes], f"{name}.length", keepdims=1)
    return [length, make("Div", [value, length.outputs[0]], f"{name}.div")]
