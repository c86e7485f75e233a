"""Output: the one tensor that holds the scores of the classes.

1. `reference.output` may name an output or any other tensor; else it is the one output, or the one that has scores behind it.
2. What only picks from the scores is left out, with what follows it: ArgMax, TopK, ZipMap and other dictionaries and sequences,
   and the look-up of a label's name. The tensor before it is the output.
3. `reference.offset` columns are cut off in front: TensorFlow's ImageNet models have a background class there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from toolkit.errors import GraphError
from toolkit.graph.edit import attribute, constant, initializer, make
from toolkit.graph.load.ends import is_linear
from toolkit.recipe import Reference

NO_SCORES = (
    "Detectors, segmentation and text recognition have such outputs, and are not supported; for a classifier, name the tensor "
    "[N, classes] in `reference.output`"
)
PICKS = {"ArgMax": 0, "TopK": 0, "ZipMap": 0, "SequenceConstruct": 0, "ArrayFeatureExtractor": 1, "Hardmax": 0}
THROUGH = {
    "Identity",
    "Cast",
    "CastMap",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "LabelEncoder",
    "SequenceAt",
    "Gather",
    "Equal",
}
LABELS = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.STRING, ir.DataType.BOOL)


def select_output(model: ir.Model, reference: Reference, path: Path) -> tuple[tuple[str, ...], bool]:
    """Rules 1 and 2, in place; notes on what was left out, and whether the file answers with the largest of the scores. Raises
    GraphError."""
    graph = model.graph
    listed = ", ".join(str(value.name) for value in graph.outputs)
    if reference.output is not None:
        named = next((value for value in _values(graph) if value.name == reference.output), None)
        if named is None:
            raise GraphError(
                f"{path} has no output '{reference.output}', nor a tensor of that name", remedy=f"Its outputs are {listed}"
            )
        chosen, picked = scores_behind(named)
    else:
        shared = _shared_columns(graph.outputs)
        found = [shared.get(value) or scores_behind(value) for value in graph.outputs]
        through = {value for value, node in found if node is not None}
        floats = {value for value, _ in found if value.dtype not in LABELS}
        likely = {value for value in floats if _is_activated(value) or value in through}
        last = {value for value in likely if _made_of(value, floats)}
        if len(last) == 1:
            through = last  # probabilities stand beside the label that their scores give
        candidates = {value: node for value, node in found if not through or value in through}
        scores = {value: node for value, node in candidates.items() if value.dtype not in LABELS}
        candidates = scores if len(scores) == 1 else candidates
        if len(candidates) > 1:
            raise _undecided(list(candidates), graph, path)
        ((chosen, _),) = candidates.items()
        picked = next((node for value, node in found if value is chosen and node is not None), None)
    before, largest = list(graph.outputs), _is_argmaxed(chosen, graph)
    graph.outputs[:] = [chosen]
    notes = []
    if picked is not None:
        notes.append(f"the output is '{chosen.name}', the scores that {picked.op_type} at the file's end picks from")
    elif chosen not in before:
        notes.append(f"the output is '{chosen.name}', a tensor inside the file, as the recipe says")
    elif len(before) > 1 and reference.output is None:
        notes.append(f"of the {len(before)} outputs ({listed}) '{chosen.name}' is taken; `reference.output` names another")
    return tuple(notes), largest


def _undecided(candidates: list[ir.Value], graph: ir.Graph, path: Path) -> GraphError:
    """What to say of several outputs that may hold the scores, and which is likely to."""
    what = f"{path} has {len(graph.outputs)} outputs: {', '.join(map(_shaped, graph.outputs))}"
    scored = [value for value in candidates if value.dtype not in LABELS] or candidates
    ends = [value for value in scored if not value.uses()] or scored  # none that others read
    name = next(filter(is_linear, ends), ends[0]).name  # a classifier's last layer before features
    return GraphError(what, remedy=f'Say which holds the scores in `reference.output`; of a model: --set output="{name}"')


def scores_behind(value: ir.Value) -> tuple[ir.Value, ir.Node | None]:
    """Rule 2: the tensor that an output was picked from, and the node that did; the output itself where none did."""
    found, last = value, value
    picked: ir.Node | None = None
    while (node := last.producer()) is not None:
        index = 0 if _takes_largest(node) else PICKS.get(node.op_type)
        if index is None and node.op_type not in THROUGH:
            break
        if node.op_type == "SequenceConstruct" and len(node.inputs) != 1:
            break
        if node.op_type == "ArrayFeatureExtractor" and constant(node.inputs[1]) is not None:  # a column by its number
            found, picked = node.inputs[0] or found, picked or node
            break
        at = index if index is not None else 0
        if node.op_type == "Gather" and len(node.inputs) > 1 and constant(node.inputs[1]) is None:
            at = 1  # a table of labels, looked up by ArgMax
        following = node.inputs[at] if len(node.inputs) > at else None
        if following is None:
            break
        last = following
        if index is not None and node.op_type != "ArrayFeatureExtractor":
            found, picked = last, picked or node
    return found, picked


def _shared_columns(outputs: Sequence[ir.Value]) -> dict[ir.Value, tuple[ir.Value, ir.Node]]:
    """Outputs that are one column each of the same probabilities, as a converter writes a table: those, and what cut them."""
    cut = {}
    for value in outputs:
        node = value.producer()
        while node is not None and node.op_type in ("Identity", "Reshape", "Squeeze", "Flatten"):
            node = node.inputs[0].producer() if node.inputs[0] is not None else None
        if node is not None and _cuts_columns(node) and node.inputs[0] is not None:
            cut[value] = (node.inputs[0], node)
    columns = Counter(base for base, _ in cut.values() if _is_activated(base) or _is_share(base))
    return {value: found for value, found in cut.items() if columns[found[0]] > 1}


def _cuts_columns(node: ir.Node) -> bool:
    """Whether each of its results is one column, as its constants say."""
    named = [constant(value) for value in node.inputs[1:]]
    if node.op_type == "Slice" and len(named) > 1 and named[0] is not None and named[1] is not None:
        return named[0].size == 1 and int(named[1].item()) - int(named[0].item()) == 1
    if node.op_type == "Gather":
        return named[0] is not None and named[0].size == 1
    if node.op_type == "Split":
        widths = named[0] if named else attribute(node, "split", None)
        return widths is not None and all(int(width) == 1 for width in widths)
    return False


def _takes_largest(node: ir.Node) -> bool:
    """Whether it is the ReduceMax over the columns of a softmax: how sure the answer is, and not which."""
    soft = node.inputs[0].producer() if node.op_type == "ReduceMax" and node.inputs[0] is not None else None
    if soft is None or soft.op_type != "Softmax":
        return False
    named = attribute(node, "axes", None) if len(node.inputs) < 2 else constant(node.inputs[1])
    axis = attribute(soft, "axis", 1)  # -1 since opset 13: of two dimensions the same
    return named is not None and [int(one) for one in named] in ([axis], [1], [-1]) and axis in (1, -1)


def _made_of(value: ir.Value, others: set[ir.Value]) -> bool:
    """Whether a value depends on every other, as probabilities do on logits, or on the features that these are made of; a
    sigmoid of features beside logits does not."""
    seen, left = {value}, [value]
    while left:
        node = left.pop().producer()
        new = [operand for operand in (node.inputs if node is not None else ()) if operand is not None and operand not in seen]
        seen.update(new)
        left += new
    return others <= seen


def _is_argmaxed(scores: ir.Value, graph: ir.Graph) -> bool:
    """Whether an output of the file, as it came, is picked from `scores` by ArgMax, or a label's name is looked up so."""
    return any(
        node is not None and node.op_type == "ArgMax" and value is scores for value, node in map(scores_behind, graph.outputs)
    )


def _shaped(value: ir.Value) -> str:
    """Its name and its shape, where the file says one."""
    return str(value.name) if value.shape is None else f"{value.name} {_shown(value.shape)}"


def _shown(shape: ir.Shape) -> list[int | str]:
    return [dim if isinstance(dim, int) else "N" if axis == 0 else "?" for axis, dim in enumerate(shape)]


def _is_activated(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type in ("Softmax", "LogSoftmax", "Sigmoid")


def _is_share(value: ir.Value) -> bool:
    """Whether it is what was activated, or what a classifier of scikit-learn's gives, over its own sum."""
    node = value.producer()
    if node is None or node.op_type not in ("Div", "Normalizer") or node.inputs[0] is None:
        return False
    before = node.inputs[0].producer()
    return _is_activated(node.inputs[0]) or (before is not None and before.op_type == "LinearClassifier")


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.outputs, *(value for node in graph for value in node.outputs)]


def cut_offset(model: ir.Model, offset: int, path: Path) -> None:
    """Rule 3, in place, on an output [N, columns]. Raises GraphError."""
    if not offset:
        return
    output = model.graph.outputs[0]
    columns = output.shape[1] if output.shape is not None and len(output.shape) == 2 else None
    if isinstance(columns, int) and offset >= columns:
        raise GraphError(f"`reference.offset` is {offset}, and {path} has {columns} columns")
    name, output.name = output.name or "", f"{output.name}.with_background"
    operands = [initializer(model.graph, f"{name}.{key}", np.array([value], np.int64)) for key, value in
                (("first", offset), ("end", np.iinfo(np.int64).max), ("axis", 1))]  # fmt: skip
    node = make("Slice", [output, *operands], f"{name}.slice", output=name)
    node.outputs[0].type = output.type
    model.graph.append(node)
    model.graph.outputs[0] = node.outputs[0]


def flatten(model: ir.Model, path: Path) -> bool:
    """[N], [N, 1, C], [N, C, 1, 1] or [N, 1, 1, C] -> [N, C], in place; whether anything was done. Raises GraphError."""
    output = model.graph.outputs[0]
    if output.shape is None or len(output.shape) == 2:
        return False
    rank, dims = len(output.shape), list(output.shape)
    if rank == 0 or sum(dim != 1 for dim in dims[1:]) > 1:
        raise GraphError(f"output '{output.name}' of {path} has shape {_shown(output.shape)}, not [N, classes]", remedy=NO_SCORES)
    name, output.name = output.name, f"{output.name}.unflattened"
    if rank == 1:
        axes = initializer(model.graph, f"{name}.axes", np.array([1], np.int64))
        node = make("Unsqueeze", [output, axes], f"{name}.column", output=name)
    else:
        node = make("Flatten", [output], f"{name}.flatten", output=name, axis=1)
    node.outputs[0].type = output.type
    model.graph.append(node)
    model.graph.outputs[0] = node.outputs[0]
    return True
