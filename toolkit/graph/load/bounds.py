"""Bounds: between which two numbers every element of a value lies, as far as operators and constants tell."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from toolkit.graph.edit import constant

Interval = tuple[float, float]
KEPT = (
    "Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Dropout", "Slice", "Gather", "Split",
    "Expand", "ReduceMean", "ReduceMax", "ReduceMin",
)  # fmt: skip
MIXED = ("Concat", "Mean", "Max", "Min")
STEPS = 32  # operators, from the output back


def bounds_of(value: ir.Value | None, unit: Callable[[ir.Value], bool], steps: int = STEPS) -> Interval | None:
    """`unit` tells of a value whether it is a probability, in 0 to 1. None where the bounds cannot be told."""
    if value is None or steps == 0:
        return None
    held = constant(value)
    if held is not None:
        return (float(held.min()), float(held.max())) if held.size and held.dtype.kind in "fiu" else None
    if unit(value):
        return 0.0, 1.0
    node = value.producer()
    if node is None or node.domain or node.op_type not in (*KEPT, *MIXED, "Add", "Sub", "Mul", "Div"):
        return None
    operands = node.inputs[:1] if node.op_type in KEPT else node.inputs
    found = [part for operand in operands if (part := bounds_of(operand, unit, steps - 1)) is not None]
    if len(found) < len(operands):
        return None
    if node.op_type in KEPT or node.op_type in MIXED:
        return min(low for low, _ in found), max(high for _, high in found)
    return _combined(node.op_type, *found)


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
