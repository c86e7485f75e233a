"""Scheme `cpu`: where ONNX Runtime wants Q/DQ pairs.

1. Each activation that a quantised operator reads has one pair, and so has each result of a convolution: ONNX Runtime fuses
   an operator only where all of its inputs come from a DequantizeLinear and its result goes to a QuantizeLinear.
2. Relu belongs to what stands before it: the pair stands after the Relu, whose clipping an unsigned type does for nothing.
3. Operators that only move values (max-pool, flatten, transpose) keep the scale of their input.
4. Activations are uint8: zero point 0 where nothing is negative, affine otherwise.
5. Logits are never quantised. A Gemm gives its bias to an Add of its own, else ONNX Runtime would not fuse it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import onnx_ir as ir

from toolkit.graph.edit import constant, matches, sole_consumer, weight_of

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MOVES = ("MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze")
COMPUTES = (*WEIGHTED, "Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat")


class Edge(NamedTuple):
    """A tensor that gets a Q/DQ pair, for the nodes that shall read it quantised (None: for all)."""

    value: ir.Value
    readers: tuple[ir.Node, ...] | None = None


def watched(model: ir.Model) -> tuple[str, ...]:
    """The tensors whose ranges every scheme draws on, in graph order: what calibration has to watch, and nothing else."""
    names = [origin(edge.value).name or "" for edge in cpu_edges(model, ())]
    return tuple(dict.fromkeys(names))


def origin(value: ir.Value) -> ir.Value:
    """The tensor that `value` has its values from, through operators that only move them."""
    producer = value.producer()
    while producer is not None and not producer.domain and producer.op_type in MOVES and producer.inputs[0] is not None:
        value = producer.inputs[0]
        producer = value.producer()
    return value


def cpu_edges(model: ir.Model, keep: Collection[str]) -> list[Edge]:
    """The edges of scheme `cpu`, in graph order."""
    values = [value for value in model.graph.inputs if value.dtype == ir.DataType.FLOAT]
    values += [output for node in model.graph for output in node.outputs]
    return [Edge(value) for value in values if _is_quantised(value, keep)]


def computes(node: ir.Node, keep: Collection[str]) -> bool:
    """Whether the node is an operator that scheme `cpu` runs in INT8: known, not kept, its operands activations or weights."""
    if node.domain or node.op_type not in COMPUTES or matches(node.name, keep):
        return False
    if node.op_type in WEIGHTED:
        return weight_of(node) is not None
    return not any(constant(value) is not None for value in node.inputs)


def fused_relu(value: ir.Value) -> ir.Node | None:
    """The Relu that takes `value`, the result of Conv, Gemm or Add, and that a backend fuses with it."""
    producer, reader = value.producer(), sole_consumer(value)
    if producer is None or producer.op_type not in ("Conv", "Gemm", "Add"):
        return None
    return reader if reader is not None and reader.op_type == "Relu" else None


def _is_quantised(value: ir.Value, keep: Collection[str]) -> bool:
    if value.is_graph_output() or value.dtype not in (ir.DataType.FLOAT, None) or fused_relu(value) is not None:
        return False
    producer = value.producer()
    if producer is not None and producer.op_type == "Relu" and producer.inputs[0] is not None:
        before = producer.inputs[0].producer()
        producer = before if fused_relu(producer.inputs[0]) is producer else producer
    made_by_conv = producer is not None and producer.op_type == "Conv" and computes(producer, keep)
    return made_by_conv or _is_wanted(value, keep)


def _is_wanted(value: ir.Value, keep: Collection[str]) -> bool:
    """Whether some reader runs in INT8, be it behind operators that only move values."""
    for reader in value.consumers():
        if computes(reader, keep) and value is not (reader.inputs[2] if len(reader.inputs) > 2 else None):
            return True
        if not reader.domain and reader.op_type in MOVES and reader.inputs[0] is value and _is_wanted(reader.outputs[0], keep):
            return True
    return False
