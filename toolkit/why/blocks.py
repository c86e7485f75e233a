"""Blocks: the layers of a network, and for each the same part of its FP32 graph and of its typed one.

A layer is a node that computes, with the activation that alone reads it; operators that only move values belong to the layer
behind them, and are one of their own where the graph ends in them. Passes keep the names of tensors, so what lies between the
same tensors of both graphs is one layer, whatever was put there: Q/DQ pairs, Casts, a bias that became a sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import onnx_ir as ir

from toolkit.graph.edges import MOVES
from toolkit.graph.edit import constant, sole_consumer

ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Gelu", "Elu", "Selu", "Mish")
PLUMBING = (*MOVES, "Identity", "Dropout", "Cast", "Expand")


class PairedLayer(NamedTuple):
    """One layer in both graphs. `reads` are the tensors of other layers, or the graph's input, by name; `output` its result."""

    name: str
    kind: str
    node: ir.Node  # of the FP32 graph
    reads: tuple[str, ...]
    output: str
    plain: tuple[ir.Node, ...]  # what computes `output` from `reads` in the FP32 graph, in order
    typed: tuple[ir.Node, ...]  # and in the typed one
    precision: str  # int8 | fp16 | bf16 | fp32


def blocks(plain: ir.Model, typed: ir.Model) -> list[PairedLayer]:
    """The layers that both graphs have, in the order of the FP32 graph."""
    tensors, inner = _by_name(plain), _by_name(typed)
    answer = plain.graph.outputs[0]
    heads = [(node, _end(node)) for node in plain.graph if _computes(node) or _moves_out(node, answer)]
    shared = [(node, end) for node, end in heads if end.name in inner]
    borders = {end.name or "" for _, end in shared} | {value.name or "" for value in plain.graph.inputs}
    found = []
    for node, end in shared:
        name = end.name or ""
        before, reads = _between(tensors[name], borders)
        after, others = _between(inner[name], borders)
        order = tuple(dict.fromkeys((*reads, *others)))
        if all(read in tensors and read in inner for read in order):
            found.append(PairedLayer(node.name or name, node.op_type, node, order, name, before, after, _precision(after)))
    return found


def _by_name(model: ir.Model) -> dict[str, ir.Value]:
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return {value.name: value for value in values if value.name}


def _computes(node: ir.Node) -> bool:
    """Whether it is a layer of its own: float, read by someone, no plumbing, no activation of the layer before it."""
    output = node.outputs[0] if node.outputs else None
    if output is None or output.dtype not in (ir.DataType.FLOAT, None) or node.op_type in PLUMBING or not any(node.inputs):
        return False
    if all(constant(value) is not None for value in node.inputs if value is not None):
        return False
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    joined = node.op_type in ACTIVATIONS and before is not None and before.op_type not in (*PLUMBING, *ACTIVATIONS)
    return not (joined and before is not None and node.inputs[0] is not None and sole_consumer(node.inputs[0]) is node)


def _moves_out(node: ir.Node, answer: ir.Value) -> bool:
    """Whether the graph ends in it, though it computes nothing."""
    return node.op_type in PLUMBING and answer in node.outputs


def _end(node: ir.Node) -> ir.Value:
    """The layer's result: behind its activation."""
    reader = sole_consumer(node.outputs[0])
    if reader is not None and reader.op_type in ACTIVATIONS and reader.inputs[0] is node.outputs[0] and not _computes(reader):
        return reader.outputs[0]
    return node.outputs[0]


def _between(end: ir.Value, borders: Iterable[str]) -> tuple[tuple[ir.Node, ...], tuple[str, ...]]:
    """The nodes that compute `end` from tensors of `borders`, in order, and those tensors."""
    borders, nodes, reads = set(borders), dict[ir.Node, None](), dict[str, None]()

    def visit(value: ir.Value | None) -> None:
        if value is None or constant(value) is not None:
            return
        if value is not end and value.name in borders:
            reads[value.name] = None
            return
        producer = value.producer()
        if producer is not None and producer not in nodes:
            for operand in producer.inputs:
                visit(operand)
            nodes[producer] = None

    visit(end)
    return tuple(nodes), tuple(reads)


def _precision(nodes: Iterable[ir.Node]) -> str:
    """By what rounds in it."""
    pairs = [node.inputs[0] for node in nodes if node.op_type == "DequantizeLinear"]
    if pairs:
        return "fp8" if any(value is not None and value.dtype == ir.DataType.FLOAT8E4M3FN for value in pairs) else "int8"
    kinds = {value.dtype for node in nodes for value in node.outputs}
    return "fp16" if ir.DataType.FLOAT16 in kinds else "bf16" if ir.DataType.BFLOAT16 in kinds else "fp32"
