"""Envelope: one typed graph under each rounding that a GPU's kernels may choose, for what cannot be run here.

A typed graph says in which type every tensor is stored, and leaves open where inside a kernel values are rounded:

- `as typed`: every FP16 tensor is rounded once, sums have FP32 accumulators (`rounding.py`);
- `epilogues in FP32`: what is fused behind a layer (sum, activation) sees its result before it is rounded;
- `FP16 accumulators`: a layer's sum over its input channels is kept in FP16, rounded after each of up to 16 parts. A tensor core
  rounds after every 16 products, so that this is the lesser error of that kind, and not its bound;
- `nothing rounded`: FP32 throughout, where a backend keeps whole chains in registers.

INT8 products have INT32 accumulators, which are exact: only their epilogues differ. Where all roundings give one answer it is as
good as known; where they differ, the GPU's choice decides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import attribute, constant, finish, initializer, insert_before, make
from toolkit.graph.rounding import AS_TYPED, HALF, as_rounded, holds_half
from toolkit.graph.run import graph_runner
from toolkit.types import Classifier

PARTS, TILE = 16, 16  # partial sums at most; input channels of each at least
AXES = {"Conv": 1, "Gemm": 1, "MatMul": -1}  # of the input, that a layer sums over


def roundings(graph: ir.Model, threads: int | None = None) -> dict[str, Callable[[], Classifier]]:
    """What to call a way of rounding -> the graph, live, under it; `as typed` first. Empty where the graph has no FP16 tensor.

    Each classifier takes float32 [N, ...] and gives logits float32 [N, classes].
    """
    if not holds_half(graph):
        return {}
    return {
        "as typed": lambda: graph_runner(as_rounded(graph), threads, without=AS_TYPED),
        "epilogues in FP32": lambda: graph_runner(as_rounded(graph, epilogues=True), threads, without=AS_TYPED),
        "FP16 accumulators": lambda: graph_runner(in_partial_sums(graph), threads, without=AS_TYPED),
        "nothing rounded": lambda: graph_runner(graph, threads, without=AS_TYPED),
    }


def in_partial_sums(graph: ir.Model) -> ir.Model:
    """`as_rounded`, where each layer with FP16 results and constant weights rounds its sum to that type on the way."""
    halves = {node.name: node.outputs[0].dtype for node in graph.graph if node.op_type in AXES and node.outputs[0].dtype in HALF}
    model = as_rounded(graph)
    for node in list(model.graph):
        if node.name in halves and node.op_type in AXES and not node.domain:
            kind = halves[node.name]
            assert kind is not None
            _split(model.graph, node, kind)
    return finish(model)


def _split(graph: ir.Graph, node: ir.Node, kind: ir.DataType) -> None:
    """Replace a layer by layers over parts of its input channels, whose results are added up one by one, each sum rounded."""
    weight, x = constant(node.inputs[1]), node.inputs[0]
    if weight is None or x is None or attribute(node, "group", 1) != 1 or attribute(node, "transA", 0) or _is_int8(node):
        return
    axis = weight.ndim - 2 if node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0)) else 1
    channels = weight.shape[axis]
    parts = min(PARTS, channels // TILE)
    if parts < 2:
        return
    sizes = [len(part) for part in np.array_split(np.arange(channels), parts)]
    name = node.name or ""
    split = ir.node(
        "Split",
        [x, initializer(graph, f"{name}.sizes", np.array(sizes, np.int64))],
        attributes={"axis": AXES[node.op_type]},
        outputs=[ir.Value(name=f"{name}.x{i}") for i in range(parts)],
        name=f"{name}.split",
    )
    insert_before(node, split)
    total: ir.Value | None = None
    for i, piece in enumerate(np.array_split(weight, np.cumsum(sizes)[:-1], axis=axis)):
        inputs: list[ir.Value | None] = [split.outputs[i], initializer(graph, f"{name}.w{i}", piece)]
        if i == 0 and len(node.inputs) > 2:
            inputs.append(node.inputs[2])
        result = ir.Value(name=f"{name}.p{i}")
        part = ir.node(node.op_type, inputs, attributes=dict(node.attributes), outputs=[result], name=f"{name}.part{i}")
        insert_before(node, part)
        added = part.outputs[0]
        if total is not None:
            add = make("Add", [total, added], f"{name}.sum{i}")
            insert_before(node, add)
            added = add.outputs[0]
        total = added if i == parts - 1 else _rounded(node, added, kind)
    assert total is not None
    node.outputs[0].replace_all_uses_with(total, replace_graph_outputs=True)
    total.name, node.outputs[0].name = node.outputs[0].name, f"{name}.whole"
    total.type, total.shape = node.outputs[0].type, node.outputs[0].shape
    graph.remove(node, safe=True)


def _rounded(node: ir.Node, value: ir.Value, kind: ir.DataType) -> ir.Value:
    half = make("Cast", [value], f"{value.name}.half", to=int(kind))
    wide = make("Cast", half.outputs, f"{value.name}.wide", to=int(ir.DataType.FLOAT))
    insert_before(node, [half, wide])
    return wide.outputs[0]


def _is_int8(node: ir.Node) -> bool:
    """Whether it multiplies integers, which add up exactly."""
    source = node.inputs[1].producer() if node.inputs[1] is not None else None
    while source is not None and source.op_type == "Cast" and source.inputs[0] is not None:
        source = source.inputs[0].producer()
    return source is not None and source.op_type == "DequantizeLinear"
