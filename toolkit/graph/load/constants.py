"""Constants: everything that no image is needed for is computed once, within a budget that is checked before memory is taken.

1. A node whose inputs are all constants becomes its result. Shapes that depend on nothing but a fixed height and width are such
   constants, and an If that asks for one is replaced by the branch taken: `squeeze` is exported so.
2. All results together may not exceed the budget; what a node would write is known from its operator's shape inference.
3. QuantizeLinear and DequantizeLinear stay: they say how a weight is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass

from toolkit.errors import GraphError
from toolkit.graph.edit import attribute, constant, initializer

SPARE = 5 << 27  # bytes that computed constants may take beside four times the file's own
GROWERS = ("ConstantOfShape", "Expand", "Range", "Tile", "Resize", "Upsample", "Pad", "OneHot", "EyeLike", "Loop", "Scan")
KEPT = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
SLOW = (
    "Conv",
    "ConvTranspose",
    "Loop",
    "Scan",
    "LSTM",
    "GRU",
    "RNN",
    "Einsum",
    "Resize",
)  # in Python; as weights they do not occur
MOST_STEPS = 1 << 32  # multiply-adds of one product of constants


def fold_constants(model: ir.Model, path: Path, stored: int) -> ir.Model:
    """In place. `stored`: bytes of the file's own tensors. Raises GraphError, which names the node over the budget."""
    from onnxscript import optimizer

    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _known_dimensions(model)
    most = SPARE + 4 * stored
    optimizer.fold_constants(
        model, onnx_shape_inference=True, input_size_limit=most, output_size_limit=most, should_fold=_within(most, path)
    )
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return model


def _known_dimensions(model: ir.Model) -> None:
    """Rule 1 for one dimension that is picked by a number, which the library leaves alone where the batch beside it is open."""
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    for node in list(model.graph):
        at = constant(node.inputs[1]) if node.op_type == "Gather" and not node.domain else None
        asked = node.inputs[0].producer() if at is not None and node.inputs[0] is not None else None
        value = asked.inputs[0] if asked is not None and asked.op_type == "Shape" else None
        if asked is None or at is None or at.size != 1 or value is None or value.shape is None:
            continue
        dims = list(value.shape)[attribute(asked, "start", 0) : attribute(asked, "end", None)]
        index = int(at.ravel()[0])
        if -len(dims) <= index < len(dims) and isinstance(dims[index], int):
            known = initializer(model.graph, node.outputs[0].name or "", np.full(at.shape, dims[index], np.int64))
            ir.convenience.replace_all_uses_with(node.outputs[0], known)


def _within(most: int, path: Path) -> Callable[[ir.Node], bool | None]:
    """Rule 2, asked by the library before it computes a node."""
    total = 0

    def allowed(node: ir.Node) -> bool | None:
        nonlocal total
        if node.op_type in KEPT:
            return None
        size = written(node)
        if size is None and node.op_type in GROWERS:
            raise GraphError(f"{path}: how much {called(node)} would write cannot be determined", remedy="Export the model again")
        if size is not None and node.op_type not in SLOW:
            total += size
        if total > most or (size or 0) > most or _steps(node) > MOST_STEPS:
            what = f"{path}: {called(node)} would compute a constant of {(size or 0) / 1e9:.3g} GB"
            remedy = f"Constants may take {most / 1e9:.2g} GB together for a file of this size; export the model without it"
            raise GraphError(what, remedy=remedy)
        return node.op_type not in SLOW

    return allowed


def called(node: ir.Node) -> str:
    """How a message names a node."""
    return f"{node.op_type} '{node.name or (node.outputs[0].name if node.outputs else '')}'"


def written(node: ir.Node) -> int | None:
    """Bytes of a node's outputs, by their inferred shapes and the largest type; None where one is unknown."""
    if node.op_type == "ConstantOfShape" and (shape := constant(node.inputs[0])) is not None:
        value = attribute(node, "value", None)
        return math.prod(int(dim) for dim in shape.ravel()) * (4 if value is None else value.dtype.bitwidth // 8)
    if node.op_type == "Range":
        bounds = [constant(value) for value in node.inputs]
        if all(value is not None for value in bounds):
            start, end, step = (float(value.ravel()[0]) for value in bounds if value is not None)
            return max(0, math.ceil((end - start) / step)) * 8 if step and math.isfinite(end - start) else None
    total = 0
    for output in node.outputs:
        dims = [] if output.shape is None else [dim for dim in output.shape if isinstance(dim, int)]
        if output.shape is None or len(dims) < len(output.shape):
            return None
        total += math.prod(dims) * width(output) // 8
    return total


def width(value: ir.Value, unknown: int = 64) -> int:
    """Bits of one element."""
    kind = value.dtype
    return unknown if kind is None or kind in (ir.DataType.STRING, ir.DataType.UNDEFINED) else kind.bitwidth


def _steps(node: ir.Node) -> int:
    if node.op_type not in ("MatMul", "Gemm"):
        return 0
    first, size = node.inputs[0], written(node)
    inner = first.shape[-1] if first is not None and first.shape is not None and len(first.shape) else 1
    return (size or 0) // 4 * (inner if isinstance(inner, int) else 1)
