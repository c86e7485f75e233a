"""Envelope: one typed graph under each rounding that a GPU's kernels may choose, for what cannot be run here.

A typed graph says in which type every tensor is stored, and leaves open where inside a kernel values are rounded:

- `as typed`: every FP16 tensor is rounded once, sums have FP32 accumulators (`rounding.py`);
- `epilogues in FP32`: what is fused behind a layer (sum, activation) sees its result before it is rounded;
- `FP16 accumulators`: a layer's sum over its input channels is kept in FP16, rounded after each of up to 16 parts. A tensor
  core rounds after every 16 products, so that this is the lesser error of that kind, and not its bound. FP8 products count too:
  Hopper keeps about 14 bits of their sums (DeepSeek-V3's technical report, 3.3.2), FP16 has 11;
- `sums in another order`: FP32 accumulators, the parts of each sum added from the last to the first: no order is promised;
- `nothing rounded`: FP32 throughout, where a backend keeps whole chains in registers.

INT8 products have INT32 accumulators, which are exact in any order: only their epilogues differ. Where all roundings give one
answer it is as good as known; where they differ, the GPU's choice decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

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
        "sums in another order": lambda: graph_runner(in_partial_sums(graph, wide=True), threads, without=AS_TYPED),
        "nothing rounded": lambda: graph_runner(graph, threads, without=AS_TYPED),
    }


def in_partial_sums(graph: ir.Model, *, wide: bool = False) -> ir.Model:
    """`as_rounded`, where each layer with FP16 results and constant weights rounds its sum to that type on the way; with `wide`
    it rounds nothing there, and adds the parts from the last to the first."""
    halves = {node.name: node.outputs[0].dtype for node in graph.graph if node.op_type in AXES and node.outputs[0].dtype in HALF}
    model = as_rounded(graph)
    for node in list(model.graph):
        if node.name in halves and node.op_type in AXES and not node.domain:
            kind = halves[node.name]
            assert kind is not None
            _split(model.graph, node, None if wide else kind)
    return finish(model)


def _split(graph: ir.Graph, node: ir.Node, kind: ir.DataType | None) -> None:
    """Replace a layer by layers over parts of its input channels, whose results are added up one by one, each sum rounded to
    `kind`; without one, from the last to the first."""
    weight, x = _weight(node.inputs[1]), node.inputs[0]
    if weight is None or x is None or attribute(node, "group", 1) != 1 or attribute(node, "transA", 0):
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
    pieces = list(enumerate(np.array_split(weight, np.cumsum(sizes)[:-1], axis=axis)))
    for i, piece in pieces if kind is not None else pieces[::-1]:
        inputs: list[ir.Value | None] = [split.outputs[i], initializer(graph, f"{name}.w{i}", piece)]
        if i == 0 and len(node.inputs) > 2:
            inputs.append(node.inputs[2])
        added = ir.Value(name=f"{name}.p{i}")
        part = ir.node(node.op_type, inputs, attributes=dict(node.attributes), outputs=[added], name=f"{name}.part{i}")
        insert_before(node, part)
        if total is not None:
            add = make("Add", [total, added], f"{name}.sum{i}")
            insert_before(node, add)
            added = add.outputs[0]
        total = added if kind is None or i == parts - 1 else _rounded(node, added, kind)
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


def _weight(value: ir.Value | None) -> NDArray[Any] | None:
    """A layer's constant weight as the graph computes with it, float32, be it in FP8 behind Casts; None for INT8, which adds up
    exactly, and for what is no constant."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Cast":
        inner, kind = _weight(node.inputs[0]), ir.DataType(attribute(node, "to", int(ir.DataType.FLOAT)))
        return None if inner is None else inner.astype(kind.numpy()).astype(np.float32)
    if node is None or node.op_type != "DequantizeLinear":
        return constant(value)
    array, scale = constant(node.inputs[0]), constant(node.inputs[1])
    if array is None or scale is None or np.issubdtype(array.dtype, np.integer):
        return None
    shape = [1] * array.ndim
    if scale.size > 1:
        shape[attribute(node, "axis", 1)] = -1
    return array.astype(np.float32) * scale.astype(np.float32).reshape(shape)
