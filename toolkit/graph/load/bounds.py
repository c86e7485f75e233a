"""Bounds: between which two numbers every element of a value lies, as far as operators and constants tell."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from toolkit.graph.edit import constant

Interval = tuple[float, float]
KEPT = (
    "Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Dropout", "Slice", "Gather", "Split",
    "Expand", "ReduceMean", "ReduceMax", "ReduceMin", "Round", "Floor", "Ceil",
)  # fmt: skip
MIXED = ("Concat", "Mean", "Max", "Min")
DECIDED = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "And", "Or", "Not", "Xor")  # 0 or 1, once cast to a float
ARITHMETIC = ("Add", "Sub", "Mul", "Div")
STEPS = 32  # operators, from the output back


def bounds_of(value: ir.Value | None, known: Callable[[ir.Value], Interval | None], steps: int = STEPS) -> Interval | None:
    """`known` tells the bounds of a value that is an activation, such as 0 to 1. None where the bounds cannot be told."""
    if value is None or steps == 0:
        return None
    held = constant(value)
    if held is not None:
        return (float(held.min()), float(held.max())) if held.size and held.dtype.kind in "fiu" else None
    if (activated := known(value)) is not None:
        return activated
    node = value.producer()
    if node is None or node.domain or node.op_type not in (*KEPT, *MIXED, *DECIDED, "Clip", "Where", "Sqrt", *ARITHMETIC):
        return None
    if node.op_type in DECIDED:
        return 0.0, 1.0
    if node.op_type == "Clip":
        return _clipped(node, bounds_of(node.inputs[0], known, steps - 1))
    operands = node.inputs[:1] if node.op_type in KEPT else node.inputs[1:] if node.op_type == "Where" else node.inputs
    found = [part for operand in operands if (part := bounds_of(operand, known, steps - 1)) is not None]
    if len(found) < len(operands):
        return None
    if node.op_type == "Sqrt":
        return math.sqrt(max(found[0][0], 0.0)), math.sqrt(max(found[0][1], 0.0))
    if node.op_type in (*KEPT, *MIXED, "Where"):
        return min(low for low, _ in found), max(high for _, high in found)
    return _combined(node.op_type, *found)


def _clipped(node: ir.Node, inner: Interval | None) -> Interval | None:
    limits = [constant(value) for value in node.inputs[1:3]]
    if len(limits) < 2 or limits[0] is None or limits[1] is None:
        return inner
    low, high = (float(limit.ravel()[0]) for limit in limits if limit is not None)
    return (low, high) if inner is None else (min(max(inner[0], low), high), min(max(inner[1], low), high))


def _combined(operator: str, a: Interval, b: Interval) -> Interval | None:
    if operator == "Add":
        return a[0] + b[0], a[1] + b[1]
    if operator == "Sub":
        return a[0] - b[1], a[1] - b[0]
    if operator == "Div":
        if b[0] <= 0 <= b[1]:
            return None
        b = 1 / b[1], 1 / b[0]
    products = [x * y for x in a for y in b]
    return min(products), max(products)
