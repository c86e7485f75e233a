"""Meaning: what a classifier's columns are, read off the operators that its graph ends in.

1. What only moves or rounds values is looked through: Flatten, Reshape, Identity, Cast, Slice, Q/DQ and their like.
2. Softmax -> probabilities; LogSoftmax, or Log of a Softmax -> log-probabilities; Sigmoid -> a probability for each column: one
   column is a binary classifier, several are the labels of a multi-label one. So are these written out in Exp, ReduceSum and Div.
3. Two columns of 1 - p and p are probabilities. One column of anything else is the logit of a binary classifier.
4. Where activations lie behind the last layer with weights in any other way (an average over flips or networks, columns joined or
   in another order), a few answers to noise tell: columns that are never negative and always add up to 1, or some of such, are
   probabilities. Else their bounds do: what can only lie in 0 to 1 is a probability for each column.
5. Columns that always add up to another number, such as percent or the answers of several heads, and activations that were scaled
   out of 0 to 1, are refused: a softmax over them would make every answer unsure.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from toolkit.errors import GraphError
from toolkit.graph.edit import attribute, constant, weight_of
from toolkit.graph.load.bounds import bounds_of
from toolkit.graph.run import graph_runner
from toolkit.types import Float, Meaning, TensorSpec, noise

THROUGH = (
    "Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Dropout", "Slice", "Clip", "QuantizeLinear",
    "DequantizeLinear", "Gather",
)  # fmt: skip
ACTIVATIONS = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Exp")
DRAWN = 8  # images of noise
NEAR = 1e-3  # sums of float16 probabilities are off by as much


def meaning_of(model: ir.Model, columns: int, path: Path) -> Meaning:
    """See the rules above. Raises GraphError where the end of the graph makes every answer the same."""
    output = model.graph.outputs[0]
    kind = _kind(_behind(output))
    if kind in ("softmax", "log-softmax") and columns == 1:
        _refuse_sole(model, kind, path)
        kind = "sigmoid"
    if kind == "other" and _activated(output):
        kind = _by_values(model, columns, path)
    if kind == "softmax":
        return "probabilities"
    if kind == "log-softmax":
        return "log-probabilities"
    if kind == "sigmoid":
        return "binary-probability" if columns == 1 else "multilabel-probabilities"
    return "binary-logit" if columns == 1 else "logits"


def _refuse_sole(model: ir.Model, kind: str, path: Path) -> None:
    """One column of a softmax over several classes is the probability of one of them; a softmax over one column says nothing."""
    answers = _answers(model, model.graph.outputs[0])
    if kind == "softmax" and np.ptp(answers) > 0:
        return
    always = 1 if kind == "softmax" else 0
    what = f"{path} ends in a softmax over one column, which is always {always}"
    if np.ptp(answers) > 0:
        what = f"{path} gives one column of a log-softmax: a class's logarithm alone, which no threshold here is on the scale of"
    raise GraphError(what, remedy="Name the tensor before it in `reference.output`: it is the logit")


def _activated(output: ir.Value) -> bool:
    """Whether an activation lies between the output and the last layers with weights (rule 4)."""
    seen, left = set[ir.Value](), [output]
    while left:
        value = left.pop()
        node = value.producer()
        if node is None or value in seen or weight_of(node) is not None:
            continue
        if node.op_type in ACTIVATIONS:
            return True
        seen.add(value)
        left += [operand for operand in node.inputs if operand is not None]
    return False


def _by_values(model: ir.Model, columns: int, path: Path) -> str:
    """Rules 4 and 5. Raises GraphError."""
    output, total, count = model.graph.outputs[0], 0.0, columns
    whole = _behind(output)  # before columns were cut off
    seen = [output] if whole is None or whole.producer() is None else list(dict.fromkeys((output, whole)))
    for value in seen if columns > 1 else ():
        answers = _answers(model, value).astype(np.float64)
        sums = answers.sum(axis=1)
        if not total and answers.min() >= 0 and np.allclose(sums, sums.mean(), rtol=NEAR, atol=0):
            total, count = float(sums.mean()), answers.shape[1]
        if abs(total - 1) <= NEAR:
            return "softmax"
        if answers.max() <= NEAR and np.allclose(np.exp(answers).sum(axis=1), 1, rtol=NEAR):
            return "log-softmax"
    bounds = bounds_of(output, lambda value: _kind(value) in ("softmax", "sigmoid"))
    if not total and bounds is not None and bounds[0] >= -1e-6 and bounds[1] <= 1 + 1e-6:
        return "sigmoid"
    if not total and bounds is None:
        return "other"
    how = f"always add up to {total:.4g}" if total else f"can only lie in {bounds[0]:.4g} to {bounds[1]:.4g}" if bounds else ""
    them = "column" if count == 1 else f"{count} columns"
    what = f"the {them} of '{output.name}' of {path} {how}: neither logits nor probabilities of one set of classes"
    inner = _last_activation(output)
    remedy = "Say what they are in `reference.outputs_are`, or name the tensor to take in `reference.output`"
    raise GraphError(what, remedy=remedy + (f'; of a model: --set output="{inner.name}"' if inner is not None else ""))


def _last_activation(output: ir.Value) -> ir.Value | None:
    """The nearest value that is a probability."""
    left = [output]
    for value in left:
        if _kind(value) != "other":
            return value
        node = value.producer()
        if node is not None and weight_of(node) is None:
            left += [operand for operand in node.inputs if operand is not None and operand not in left]
    return None


def _answers(model: ir.Model, value: ir.Value) -> Float:
    """[DRAWN, columns]: what a value of the graph is on noise."""
    if value is not model.graph.outputs[0]:
        model = model.clone()
        model.graph.outputs[:] = [found for node in model.graph for found in node.outputs if found.name == value.name]
    image = model.graph.inputs[0]
    shape: tuple[int | str, ...] = ("N", *(int(dim) for dim in (image.shape or ())[1:] if isinstance(dim, int)))
    drawn = noise(TensorSpec(name=image.name or "", dtype="float32", shape=shape), DRAWN)
    run = graph_runner(model, 1)
    return np.concatenate([run(drawn[i : i + 1]).reshape(1, -1) for i in range(DRAWN)])


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
