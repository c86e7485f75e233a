"""Ends: which function the operators in front of a value are: a softmax, its logarithm, a sigmoid, or another.

1. What only moves or rounds values is looked through: Flatten, Reshape, Identity, Cast, Slice, Q/DQ and their like.
2. Softmax, LogSoftmax and Sigmoid count by name, and where they are written out in Exp, ReduceSum and Div.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import attribute, constant, weight_of

THROUGH = (
    "Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Dropout", "Slice", "Clip", "QuantizeLinear",
    "DequantizeLinear", "Gather",
)  # fmt: skip
POOLS = ("GlobalAveragePool", "AveragePool", "ReduceMean")


def kind_of(value: ir.Value | None) -> str:
    """softmax, log-softmax, sigmoid, or other."""
    node = value.producer() if value is not None else None
    if node is None or node.domain:
        return "other"
    named = {"Softmax": "softmax", "LogSoftmax": "log-softmax", "Sigmoid": "sigmoid", "HardSigmoid": "sigmoid"}
    if node.op_type in named:
        return named[node.op_type]
    if node.op_type == "Log" and kind_of(behind(node.inputs[0])) == "softmax":
        return "log-softmax"
    if node.op_type == "Div":
        return _quotient(node)
    if node.op_type == "Reciprocal" and _is_one_plus_exp(node.inputs[0]):
        return "sigmoid"
    if node.op_type == "Sub" and _is_log_sum(behind(node.inputs[1])):
        return "log-softmax"
    if node.op_type == "Exp" and kind_of(behind(node.inputs[0])) == "log-softmax":
        return "softmax"
    if node.op_type == "Concat" and len(node.inputs) == 2 and any(map(_is_complement, node.inputs, node.inputs[::-1])):
        return "softmax"
    return "other"


def _quotient(node: ir.Node) -> str:
    """exp(x) / sum(exp(x)), or 1 / (1 + exp(-x))."""
    top, bottom = behind(node.inputs[0]), behind(node.inputs[1])
    one = constant(node.inputs[0])
    if one is not None and bool(np.all(one == 1)) and _is_one_plus_exp(bottom):
        return "sigmoid"
    below = bottom.producer() if bottom is not None else None
    if _op(top) == "Exp" and below is not None and below.op_type == "ReduceSum" and below.inputs[0] is top:
        return "softmax"
    return "other"


def _is_one_plus_exp(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Add":
        return False
    ones = [constant(operand) for operand in node.inputs]
    return any(one is not None and bool(np.all(one == 1)) for one in ones) and "Exp" in {_op(operand) for operand in node.inputs}


def _is_log_sum(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    if node is None:
        return False
    if node.op_type == "Log":
        inner = node.inputs[0].producer() if node.inputs[0] is not None else None
        return inner is not None and inner.op_type == "ReduceSum" and _op(inner.inputs[0]) == "Exp"
    return node.op_type == "ReduceLogSumExp"


def _is_complement(value: ir.Value | None, other: ir.Value | None) -> bool:
    """Whether `value` is 1 - `other`."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Sub" or node.inputs[1] is not other:
        return False
    one = constant(node.inputs[0])
    return one is not None and bool(np.all(one == 1))


def _op(value: ir.Value | None) -> str:
    node = value.producer() if value is not None else None
    return node.op_type if node is not None else ""


def behind(value: ir.Value | None) -> ir.Value | None:
    """Rule 1: the value that `value` was moved or rounded from."""
    while value is not None and (node := value.producer()) is not None and node.op_type in THROUGH and not node.domain:
        if node.op_type == "Clip" and not _is_unit(node):
            break
        value = node.inputs[0]
    return value


def _is_unit(node: ir.Node) -> bool:
    """A Clip to somewhere within 0 to 1 leaves a probability one."""
    bounds = [constant(value) for value in node.inputs[1:]] or [np.asarray(attribute(node, key, 9.0)) for key in ("min", "max")]
    return all(bound is not None and -1e-6 <= float(bound.ravel()[0]) <= 1 + 1e-6 for bound in bounds)


def is_linear(output: ir.Value) -> bool:
    """Whether a value comes straight from a layer with weights: moved, averaged over places, shifted or scaled by a constant."""
    value: ir.Value | None = output
    while value is not None and (node := value.producer()) is not None and not node.domain:
        if weight_of(node) is not None:
            return kind_of(behind(node.inputs[0])) == "other"  # such as probabilities of classes, added up to groups of them
        if node.op_type in ("Add", "Sub", "Mul", "Div") and len(node.inputs) == 2:
            varying = [operand for operand in node.inputs if constant(operand) is None]
            value = varying[0] if len(varying) == 1 else None
        elif node.op_type in (*THROUGH, *POOLS) and node.op_type != "Clip":
            value = node.inputs[0]
        else:
            return node.op_type == "BatchNormalization"
    return False
