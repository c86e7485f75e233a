"""Edges: the tensors that get a Q/DQ pair, as the schemes name them."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from toolkit.graph.activations import Activation

MOVES = ("MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "Slice", "Gather")


class Edge(NamedTuple):
    """A tensor that gets a Q/DQ pair, for the nodes that shall read it quantized (None: for all).

    `unit` is the activation function that alone reads it: the pair need not span what the function cuts.
    """

    value: ir.Value
    readers: tuple[ir.Node, ...] | None = None
    unit: Activation | None = None


def moves(node: ir.Node) -> bool:
    """Whether the node only moves values: what it gives can keep the scale of what it reads."""
    return not node.domain and node.op_type in MOVES


def origin(value: ir.Value) -> ir.Value:
    """The tensor that `value` has its values from, through operators that only move them."""
    producer = value.producer()
    while producer is not None and moves(producer) and producer.inputs[0] is not None:
        value = producer.inputs[0]
        producer = value.producer()
    return value
