"""Meaning: what a classifier's columns are, read off the operators that its graph ends in.

1. Softmax -> probabilities; LogSoftmax, or Log of a Softmax -> log-probabilities; Sigmoid -> a probability for each column: one
   column is a binary classifier, several are the labels of a multi-label one, unless the file answers with the largest of them,
   or they are of x and -x. `ends.py` recognizes them.
2. Two columns of 1 - p and p are probabilities. One column of anything else is the logit of a binary classifier.
3. Where more lies behind the last layer with weights (an average over flips or networks, columns joined or in another order,
   scores divided by their sum), a few answers to noise tell: columns that are never negative and always add up to 1, or some of
   such, are probabilities. Else their bounds do: what can only lie in 0 to 1 is a probability for each column; or of one class
   each, where a softmax was rounded or cut off.
4. Columns that always add up to another number, such as percent or the answers of several heads, and activations that were scaled
   out of 0 to 1, are refused: a softmax over them would make every answer unsure. So is what is made of a softmax and is not in
   proportion to it, such as its root. So are distances, of which the least is the answer.
5. What says no where it is large is refused: 1 minus a softmax or a sigmoid, and the first of a softmax's two columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolkit.errors import GraphError
from toolkit.graph.edit import attribute, weight_of
from toolkit.graph.load.bounds import Interval, bounds_of
from toolkit.graph.load.ends import behind, is_linear, kind_of
from toolkit.graph.run import graph_runner
from toolkit.types import Float, Meaning, TensorSpec, noise

Values = NDArray[np.float64]
DRAWN = 8  # images of noise
EXACT = 1e-5  # sums of float32
NEAR = 1e-3  # sums of float16 probabilities are off by as much
ROUNDED = 0.011  # probabilities of two digits are off by 0.005, and by as much again where the largest is
LENGTHS = ("Sqrt", "ReduceL1", "ReduceL2")
REMEDY = "Say what they are in `reference.outputs_are`, or name the tensor to take in `reference.output`"


def meaning_of(model: ir.Model, columns: int, path: Path, largest: bool = False) -> Meaning:
    """See the rules above. `largest`: whether the file itself answers with the largest column, so that each image has one class.
    Raises GraphError where the end of the graph makes every answer the same, or unsure."""
    output = model.graph.outputs[0]
    _refuse_over_batch(output, path)
    kind = kind_of(behind(output))
    _refuse_no(model, columns, path)
    if kind in ("softmax", "log-softmax") and columns == 1:
        _refuse_sole(model, kind, path)
        kind = "sigmoid"
    if kind == "other" and not is_linear(output):
        kind = _by_values(model, columns, path)
    if kind == "sigmoid" and columns > 1 and (largest or _add_up(model, columns)):
        kind = "softmax"
    if kind == "softmax":
        return "probabilities"
    if kind == "log-softmax":
        return "log-probabilities"
    if kind == "sigmoid":
        return "binary-probability" if columns == 1 else "multilabel-probabilities"
    return "binary-logit" if columns == 1 else "logits"


def _refuse_over_batch(output: ir.Value, path: Path) -> None:
    """A softmax over the first axis compares the images of a batch: of one image every class gets 1."""
    last = behind(output)
    node = last.producer() if last is not None else None
    if node is None or node.op_type not in ("Softmax", "LogSoftmax") or last is None or last.shape is None:
        return
    first = attribute(node, "axis", -1) % len(last.shape) == 0 and len(last.shape) > 1
    if first and not isinstance(last.shape[0], int):  # else classes were put first
        what = f"{path} ends in a {node.op_type} over axis 0, the images of a batch, and not over the classes"
        take = node.inputs[0].name if node.inputs[0] is not None else ""
        raise GraphError(what, remedy=f'Take what it reads, the logits; of a model: --set output="{take}"')


def _refuse_no(model: ir.Model, columns: int, path: Path) -> None:
    """Rule 5, told by a few answers to noise."""
    output = model.graph.outputs[0]
    for inner in [value for value in _activations(output) if kind_of(value) in ("softmax", "sigmoid")]:
        if inner in (output, behind(output)) and (columns > 1 or kind_of(inner) == "sigmoid"):
            continue
        yes, answers = _answers(model, inner), _answers(model, output)
        if np.allclose(yes, 1 - yes, atol=NEAR):  # a half, either way
            continue
        take = f'Take it; of a model: --set output="{inner.name}"'
        if answers.shape == yes.shape and np.allclose(answers, 1 - yes, atol=EXACT):
            what = f"{path} gives 1 minus a {kind_of(inner)}, which is large where the answer is no"
            raise GraphError(what, remedy=f"{take}; or say in `reference.outputs_are` that it is meant so")
        first = columns == 1 and kind_of(inner) == "softmax" and yes.shape[1] == 2
        if first and np.allclose(answers, yes[:, :1], atol=EXACT):
            what = f"{path} gives the first of a softmax's two columns, which is large where the answer is class 0"
            raise GraphError(what, remedy=take.replace("it;", "both;"))


def _refuse_sole(model: ir.Model, kind: str, path: Path) -> None:
    """One column of a softmax over several classes is the probability of one of them; a softmax over one column says nothing."""
    varies = np.ptp(_answers(model, model.graph.outputs[0])) > 0
    if varies and kind == "softmax":
        return
    what = f"{path} ends in a softmax over one column, which is always {1 if kind == 'softmax' else 0}"
    if varies:
        what = f"{path} gives one column of a log-softmax: a class's logarithm alone, which no threshold here is on the scale of"
    raise GraphError(what, remedy="Name the tensor before it in `reference.output`: it is the logit")


def _by_values(model: ir.Model, columns: int, path: Path) -> str:
    """Rules 3 and 4. Raises GraphError."""
    output = model.graph.outputs[0]
    activations = _activations(output)
    soft = [value for value in activations if kind_of(value) == "softmax"]
    inner, total, count, most = next(iter((*soft, *activations)), None), 0.0, columns, 0.0
    whole = behind(output)  # before columns were cut off
    seen = [output] if whole is None or whole.producer() is None else list(dict.fromkeys((whole, output)))
    for value in seen if columns > 1 else ():
        answers = _answers(model, value).astype(np.float64)
        most = float(answers.sum(axis=1).max())
        if not total and (total := _constant_sum(answers, inner is not None)):
            count = answers.shape[1]
        if abs(total - 1) <= NEAR:
            return "softmax"
        if answers.max() <= NEAR and np.allclose(np.exp(answers).sum(axis=1), 1, rtol=NEAR):
            return "log-softmax"
    bounds = bounds_of(output, _activation_bounds)
    if bounds is not None and inner is not None and _is_tanh(inner) and bounds[1] - bounds[0] > 2 + NEAR:
        bounds = None  # a tanh that is scaled up only limits logits
    if bounds is not None and inner is None and not _is_unit(bounds):
        bounds = None  # and so does a clip
    one_of_many = kind_of(inner) == "softmax" and columns > 1
    if bounds is not None and _is_unit(bounds) and not total and not (one_of_many and most > 1 + NEAR * columns):
        if not one_of_many:
            return "sigmoid"
        if len(soft) > 1 or _in_proportion(model, soft[0]):
            return "softmax"
        most = 0.0
    how = _how(output, total, most, bounds)
    if how is None:
        return "other"
    them = "column" if count == 1 else f"{count} columns"
    take = inner.producer().inputs[0] if inner is not None and _is_tanh(inner) else inner  # type: ignore[union-attr]
    example = f'; of a model: --set output="{take.name}"' if take is not None else ""
    raise GraphError(f"the {them} of '{output.name}' of {path} {how}", remedy=REMEDY + example)


def _add_up(model: ir.Model, columns: int) -> bool:
    """Whether sigmoids are those of x and -x: scikit-learn's converter writes a binary classifier so."""
    return columns == 2 and abs(_constant_sum(_answers(model, model.graph.outputs[0]).astype(np.float64), True) - 1) <= NEAR


def _constant_sum(answers: Values, activated: bool) -> float:
    """What columns that are never negative always add up to; 0 where the sum varies.

    Where there is no activation a sum must be one to the last bits: averages of ReLUs over a noisy image differ by little, and an
    untrained network whose answers are all the same has such a sum by chance.
    """
    sums = answers.sum(axis=1)
    near = NEAR if activated else EXACT
    if answers.shape[1] < 2 or not answers.min() >= 0 or not np.allclose(sums, sums.mean(), rtol=near, atol=0):
        return 0.0
    return float(sums.mean()) if activated or np.ptp(answers, axis=0).max() > NEAR else 0.0


def _how(output: ir.Value, total: float, most: float, bounds: Interval | None) -> str | None:
    """What makes the columns neither logits nor probabilities; None where nothing does."""
    neither = "neither logits nor probabilities of one set of classes"
    last = behind(output)
    node = last.producer() if last is not None else None
    if total:
        return f"always add up to {total:.4g}: {neither}"
    if bounds is not None and _is_unit(bounds):
        made = f"add up to as much as {most:.4g}" if most else "are not in proportion to it"
        return f"are made of a softmax, and {made}: {neither}"
    if node is not None and node.op_type in LENGTHS:
        return f"are lengths or distances ({node.op_type}), of which the least may be the answer"
    return f"can only lie in {bounds[0]:.4g} to {bounds[1]:.4g}: {neither}" if bounds is not None else None


def _activation_bounds(value: ir.Value) -> Interval | None:
    return (-1.0, 1.0) if _is_tanh(value) else (0.0, 1.0) if kind_of(value) in ("softmax", "sigmoid") else None


def _is_unit(bounds: Interval) -> bool:
    return bounds[0] >= -1e-6 and bounds[1] <= 1 + 1e-6


def _is_tanh(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type in ("Tanh", "Softsign")


def _activations(output: ir.Value) -> list[ir.Value]:
    """The nearest values that are probabilities, or in -1 to 1, behind the last layers with weights."""
    left, found = [output], list[ir.Value]()
    for value in left:
        if kind_of(value) != "other" or _is_tanh(value):
            found.append(value)
            continue
        node = value.producer()
        if node is not None and (weight_of(node) is None or not is_linear(value)):
            left += [operand for operand in dict.fromkeys(node.inputs) if operand is not None and operand not in left]
    return found


def _in_proportion(model: ir.Model, soft: ir.Value) -> bool:
    """Whether the output is a softmax, all of its columns times one number, but for those that were cut off to 0; rounded or not.
    Of another number of columns nothing is known."""
    whole, answers = _answers(model, soft).astype(np.float64), _answers(model, model.graph.outputs[0]).astype(np.float64)
    if whole.shape != answers.shape:
        return True
    rows, top = np.arange(len(whole)), whole.argmax(axis=1)
    wanted = whole * (answers[rows, top] / whole[rows, top])[:, None]
    return bool(((answers == 0) | (np.abs(answers - wanted) <= ROUNDED)).all())


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
