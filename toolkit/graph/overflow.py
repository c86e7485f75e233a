"""Which tensors FP16 could not hold, as a look at some images foresees it: their layers stay in FP32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import constant, weight_of
from toolkit.graph.variance import Island

# Some images only are looked at; a tensor that comes within a factor of 2 of the largest float16 is not safe on others.
LIMIT = float(np.finfo(np.float16).max) / 2
PASSES = ("Relu", "Clip", "MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity")


class Overflow(Island, frozen=True):
    """A tensor that passes `LIMIT`; its nodes are those that compute or read it."""

    tensor: str
    magnitude: float

    def __str__(self) -> str:
        most = np.finfo(np.float16).max
        return (
            f"FP32 kept for {', '.join(self.nodes)}: '{self.tensor}' reaches {self.magnitude:.4g}, and float16 ends at {most:.0f}"
        )


def fp16_overflow(model: ir.Model, tensors: Mapping[str, float]) -> tuple[Overflow, ...]:
    """The tensors of the FP32 graph whose magnitude passes `LIMIT`, in graph order.

    `tensors` are the largest |x| seen, by name. A tensor's value is computed by its producer and by what that reads without
    changing its magnitude (the sum before a Relu), and goes on through operators that only move it, to the first that computes
    with it.
    """
    found = []
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    for value in values:
        magnitude = tensors.get(value.name or "", 0.0)
        if magnitude > LIMIT:
            nodes = [*_makers(value), *_takers(value)]
            found.append(Overflow(tensor=value.name or "", magnitude=magnitude, nodes=tuple(dict.fromkeys(nodes))))
    return tuple(found)


def _makers(value: ir.Value) -> list[str]:
    """The producer, and what stands before it up to the layer or the sum that made the magnitude."""
    node = value.producer()
    if node is None:
        return []
    before = _makers(node.inputs[0]) if node.op_type in PASSES and node.inputs[0] is not None else []
    if node.op_type == "Add":  # its operands may be as large with the other sign
        operands = [operand for operand in node.inputs if operand is not None and constant(operand) is None]
        before = [name for operand in operands for name in _layer(operand)]
    return [*before, node.name or ""]


def _layer(value: ir.Value) -> list[str]:
    producer = value.producer()
    return [producer.name or ""] if producer is not None and weight_of(producer) is not None else []


def _takers(value: ir.Value) -> list[str]:
    """The readers; through those that only pass the value on, their readers too."""
    names = []
    for node in value.consumers():
        names.append(node.name or "")
        if node.op_type in PASSES:
            names += _takers(node.outputs[0])
    return names
