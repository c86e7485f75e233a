"""What the passes share: looking at a graph, and the few edits that keep names and order."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import CheckerPass, RemoveUnusedNodesPass, ShapeInferencePass

from toolkit.errors import GraphError

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array behind an initializer or a Constant node, else None."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Add `array` to the graph under `name`, or a free name like it."""
    taken = graph.initializers
    free = name
    suffix = 1
    while free in taken:
        free, suffix = f"{name}_{suffix}", suffix + 1
    tensor = ir.tensor(np.asarray(array, order="C"), name=free)
    value = ir.Value(name=free, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`, where there is just one and `value` is no output of the graph."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def weight_of(node: ir.Node) -> ir.Value | None:
    """The constant weight of a Conv, ConvTranspose, Gemm or MatMul; None for any other node, or a computed weight."""
    if node.domain or node.op_type not in WEIGHTED or len(node.inputs) < 2:
        return None
    value = node.inputs[1]
    return value if value is not None and constant(value) is not None else None


def output_axis(node: ir.Node) -> int:
    """The axis of the weight along which the output channels lie."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1 if node.op_type == "ConvTranspose" else -1


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """An attribute's value, or the default of the operator's definition."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def matches(name: str | None, patterns: Collection[str]) -> bool:
    """Whether a node's name is one of `patterns`, lies below one (`layer1` covers `layer1.0.conv1`), or fits its `*`."""
    return name is not None and any(name == p or name.startswith(f"{p}.") or fnmatch.fnmatchcase(name, p) for p in patterns)


def require_matches(graph: ir.Model, patterns: Iterable[str], key: str) -> None:
    """Raise GraphError for a pattern that fits no layer: a typing error must not pass for a wish that was granted."""
    names = [node.name for node in graph.graph if node.name]
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in names):
            layers = ", ".join(str(node.name) for node in list(graph.graph) if weight_of(node) is not None)
            raise GraphError(f"`{key}` names '{pattern}', which is not a layer of this graph", remedy=f"Layers are {layers}")


def finish(model: ir.Model) -> ir.Model:
    """How every pass ends: unused nodes go, shapes are inferred again, the checker has the last word. Raises GraphError."""
    RemoveUnusedNodesPass()(model)
    model.graph.sort()
    try:
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        CheckerPass(full_check=False)(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ir.passes.PassError, ValueError) as error:
        said = " ".join(str(error.__cause__ or error).split())  # the checker's words are of several lines
        raise GraphError(f"the rewritten graph is not valid ONNX: {said}") from error
    return model


def insert_before(node: ir.Node, new: ir.Node | Sequence[ir.Node]) -> None:
    """Put nodes into the graph just before `node`."""
    assert node.graph is not None
    node.graph.insert_before(node, new)


def make(op: str, inputs: Sequence[ir.Value | None], name: str, *, output: str | None = None, **attributes: Any) -> ir.Node:
    """A node with one output, called `output` or after the node."""
    out = ir.Value(name=output or name)
    return ir.node(op, inputs, attributes=attributes or None, outputs=[out], name=name)
