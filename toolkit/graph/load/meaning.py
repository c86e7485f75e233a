"""Meaning: what a classifier's columns are, read off the operators that its graph ends in.

1. What only moves or rounds values is looked through: Flatten, Reshape, Identity, Cast, Slice, Q/DQ and their like.
2. Softmax -> probabilities; LogSoftmax, or Log of a Softmax -> log-probabilities; Sigmoid -> a probability for each column: one
   column is a binary classifier, several are the labels of a multi-label one. So are these written out in Exp, ReduceSum and Div.
3. Two columns of 1 - p and p are probabilities. One column of anything else is the logit of a binary classifier.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from toolkit.errors import GraphError
from toolkit.graph.edit import attribute, constant
from toolkit.types import Meaning

THROUGH = (
    "Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Dropout", "Slice", "Clip", "QuantizeLinear",
    "DequantizeLinear",
)  # fmt: skip


def meaning_of(model: ir.Model, columns: int, path: Path) -> Meaning:
    """See the rules above. Raises GraphError where the end of the graph makes every answer the same."""
    kind = _kind(_behind(model.graph.outputs[0]))
    if kind in ("softmax", "log-softmax") and columns == 1:
        what = f"{path} ends in a softmax over one column, which is always {1 if kind == 'softmax' else 0}"
        raise GraphError(what, remedy="Name the tensor before it in `reference.output`: it is the logit")
    if kind == "softmax":
        return "probabilities"
    if kind == "log-softmax":
        return "log-probabilities"
    if kind == "sigmoid":
        return "binary-probability" if columns == 1 else "multilabel-probabilities"
    return "binary-logit" if columns == 1 else "logits"


def _kind(value: ir.Value | None) -> str:
    """softmax, log-softmax, sigmoid, or other."""
    node = value.producer() if value is not None else None
    if node is None or node.domain:
        return "other"
    named = {"Softmax": "softmax", "LogSoftmax": "log-softmax", "Sigmoid": "sigmoid", "HardSigmoid": "sigmoid"}
    if node.op_type in named:
        return named[node.op_type]
    if node.op_type == "Log" and _kind(_behind(node.inputs[0])) == "softmax":
        return "log-softmax"
    if node.op_type == "Div":
        return _quotient(node)
    if node.op_type == "Reciprocal" and _is_one_plus_exp(node.inputs[0]):
        return "sigmoid"
    if node.op_type == "Sub" and _is_log_sum(node.inputs[1]):
        return "log-softmax"
    if node.op_type == "Concat" and len(node.inputs) == 2 and any(map(_is_complement, node.inputs, node.inputs[::-1])):
        return "softmax"
    return "other"


def _quotient(node: ir.Node) -> str:
    """exp(x) / sum(exp(x)), or 1 / (1 + exp(-x))."""
    top, bottom = _behind(node.inputs[0]), _behind(node.inputs[1])
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


def _behind(value: ir.Value | None) -> ir.Value | None:
    """Rule 1."""
    while value is not None and (node := value.producer()) is not None and node.op_type in THROUGH and not node.domain:
        if node.op_type == "Clip" and not _is_unit(node):
            break
        value = node.inputs[0]
    return value


def _is_unit(node: ir.Node) -> bool:
    """A Clip to somewhere within 0 to 1 leaves a probability one."""
    bounds = [constant(value) for value in node.inputs[1:]] or [np.asarray(attribute(node, key, 9.0)) for key in ("min", "max")]
    return all(bound is not None and -1e-6 <= float(bound.ravel()[0]) <= 1 + 1e-6 for bound in bounds)
