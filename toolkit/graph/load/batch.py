"""Batch: the first dimension of the image becomes `N`, whatever batch was exported.

1. Height and width that the file leaves open are the recipe's.
2. Where a batch is written into the file, its dimension is followed from the image on, operator by operator (`follow.py`).
3. What names the batch then gives it up: a Reshape computes the dimension (-1), an Expand leaves it to its input, a Resize names
   the other axes only. A constant that Concat joins to images is repeated for each.
4. A Gather that picks every value of a flat tensor in order, as torch writes `as_strided`, is a Reshape.
5. A Squeeze that names no axes never takes the batch, not even of one image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from toolkit.graph.edit import constant, finish, initializer, insert_before, make
from toolkit.graph.load.follow import Place, Shapes, follow
from toolkit.recipe import Preprocess


def set_image(model: ir.Model, preprocess: Preprocess, batch: int | None) -> None:
    """Rule 1, in place; shapes of computed tensors are forgotten, and inferred again by what comes next."""
    graph = model.graph
    graph.inputs[0].type = graph.inputs[0].type or ir.TensorType(ir.DataType.FLOAT)
    graph.inputs[0].shape = ir.Shape([batch or "N", *preprocess.input_shape])
    for node in graph:
        for output in node.outputs:
            output.shape = None


def free_batch(model: ir.Model, preprocess: Preprocess, batch: int | None) -> None:
    """Rules 2 to 5, in place, on a graph whose constants are folded. `batch`: what the file has fixed; None where it is free."""
    if batch is not None:
        set_image(model, preprocess, batch)
        _undo_strides(model.graph)
        finish(model)
        _release(model.graph, batch)
    set_image(model, preprocess, None)
    _keep_in_squeeze(model)


def _keep_in_squeeze(model: ir.Model) -> None:
    """Rule 5."""
    for node in list(model.graph):
        if node.op_type != "Squeeze" or node.domain or len(node.inputs) > 1:
            continue
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)  # again: the last one may tell more
        given = node.inputs[0]
        if given is None or given.shape is None or not all(isinstance(dim, int) for dim in given.shape[1:]):
            continue
        axes = [i for i, dim in enumerate(given.shape) if i and dim == 1]
        if axes:
            node.resize_inputs(2)
            node.replace_input_with(1, initializer(model.graph, f"{node.name}.axes", np.array(axes, np.int64)))
        else:
            name, same = node.outputs[0].name, make("Identity", [given], f"{node.name}.same")
            insert_before(node, same)
            ir.convenience.replace_all_uses_with(node.outputs[0], same.outputs[0], replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            same.outputs[0].name = name


def _release(graph: ir.Graph, batch: int) -> None:
    places: dict[ir.Value, Place] = {graph.inputs[0]: Place(0, 1)}
    shapes: Shapes = {}
    for value in (*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)):
        if value.shape is not None and all(isinstance(dim, int) for dim in value.shape):
            shapes[value] = [dim for dim in value.shape if isinstance(dim, int)]
    for node in list(graph):
        place = follow(node, places, shapes, batch)
        if place is None:
            continue
        _give_up(graph, node, place.axis, batch, places, shapes)
        places.update((output, place) for output in node.outputs if place.axis < len(shapes.get(output, [0] * 99)))


def _give_up(graph: ir.Graph, node: ir.Node, axis: int, batch: int, places: dict[ir.Value, Place], shapes: Shapes) -> None:
    """Rule 3."""
    made = shapes.get(node.outputs[0])
    if node.op_type == "Reshape" and constant(node.inputs[1]) is not None and made is not None and 0 not in made:
        _set(graph, node, 1, [*made[:axis], -1, *made[axis + 1 :]])
        node.attributes.pop("allowzero", None)
    elif node.op_type == "Expand" and (target := constant(node.inputs[1])) is not None:
        behind = (len(made) if made is not None else target.size) - axis  # counted from the last dimension
        if target.size >= behind and target[-behind] == batch:
            _set(graph, node, 1, [*target[:-behind], 1, *target[target.size - behind + 1 :]])
    elif node.op_type == "Resize" and axis == 0 and len(node.inputs) > 3 and (sizes := constant(node.inputs[3])) is not None:
        if "axes" not in node.attributes and sizes.size > 2:
            _set(graph, node, 3, sizes[2:].tolist())
            node.attributes["axes"] = ir.AttrInt64s("axes", list(range(2, sizes.size)))
    elif node.op_type == "Concat":
        _repeat_constants(graph, node, axis, places, shapes)


def _set(graph: ir.Graph, node: ir.Node, index: int, values: Sequence[int]) -> None:
    name = f"{node.name or node.outputs[0].name}.shape"
    node.replace_input_with(index, initializer(graph, name, np.array(values, np.int64)))


def _repeat_constants(graph: ir.Graph, node: ir.Node, axis: int, places: dict[ir.Value, Place], shapes: Shapes) -> None:
    """A class token of one image stands beside N of them: it is expanded to as many as the image has."""
    for value in node.inputs:
        if value is None or value in places or constant(value) is None or shapes.get(value, [0] * 9)[axis : axis + 1] != [1]:
            continue
        stem = f"{node.name or node.outputs[0].name}.{value.name}"
        carrier = next(other for other in node.inputs if other in places)
        shape = make("Shape", [carrier], f"{stem}.count", start=axis, end=axis + 1)
        rest = [[1] * axis, [1] * (len(shapes[value]) - axis - 1)]
        ones = [initializer(graph, f"{stem}.ones", np.array(dims, np.int64)) for dims in rest if dims]
        parts = [ones[0]] * (axis > 0) + [shape.outputs[0]] + [ones[-1]] * bool(rest[1])
        target = make("Concat", parts, f"{stem}.shape", axis=0)
        repeated = make("Expand", [value, target.outputs[0]], f"{stem}.repeated")
        insert_before(node, [shape, target, repeated])
        for index in [i for i, other in enumerate(node.inputs) if other is value]:
            node.replace_input_with(index, repeated.outputs[0])


def _undo_strides(graph: ir.Graph) -> None:
    """Rule 4."""
    for node in list(graph):
        picks = constant(node.inputs[1]) if node.op_type == "Gather" and not node.domain else None
        flat = node.inputs[0].producer() if picks is not None and node.inputs[0] is not None else None
        shape = constant(flat.inputs[1]) if flat is not None and flat.op_type == "Reshape" else None
        if picks is None or flat is None or shape is None or shape.tolist() not in ([-1], [picks.size]):
            continue
        if np.array_equal(picks.ravel(), np.arange(picks.size)):
            target = initializer(graph, f"{node.name}.shape", np.array(picks.shape, np.int64))
            whole = make("Reshape", [flat.inputs[0], target], f"{node.name}.whole")
            insert_before(node, whole)
            ir.convenience.replace_all_uses_with(node.outputs[0], whole.outputs[0], replace_graph_outputs=True)
            graph.remove(node, safe=True)
