"""Operators: what the passes and the backends cannot take is named, before any of them stumbles over it."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from toolkit.errors import GraphError
from toolkit.graph.load.constants import called

QDQ = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
INTEGER = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
_ADVICE = {
    "com.microsoft": "ONNX Runtime's own optimizer writes such operators: give the file that it was made from",
    "ai.onnx.ml": "Trees, support vectors and the like are no network: put a linear classifier or layers in its place. Where it "
    "only picks from scores, name the tensor before it in `reference.output`",
    "ai.onnx.preview.training": "Export the model in inference mode",
    "org.pytorch.aten": "Export it again with torch.onnx.export(..., dynamo=True), which writes standard operators",
    "com.microsoft.nchwc": "ONNX Runtime's own optimizer writes such operators: give the file that it was made from",
}
_CONTROL = ("If", "Loop", "Scan", "SequenceMap")


def refuse_foreign(model: ir.Model, path: Path) -> None:
    """Raises GraphError for an operator that ONNX does not define, or of another domain, which the message names."""
    opset = model.opset_imports.get("", 0)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain in ("", "ai.onnx"):
            if not onnx.defs.has(node.op_type):
                raise GraphError(f"{path}: ONNX defines no operator {called(node)}", remedy="Export the model again")
            try:
                onnx.defs.get_schema(node.op_type, opset, "")
            except onnx.defs.SchemaError:
                what = f"{path}: {called(node)} does not exist in opset {opset}"
                raise GraphError(what, remedy="Export the model again with the opset that it needs") from None
            continue
        if "QLinear" in node.op_type or node.op_type.startswith(("QGemm", "QAttention", "QMoE")):
            raise _quantized(node, path)
        if node.op_type == "EPContext":
            what = f"{path} carries an engine that is compiled already ({called(node)}), and no network"
            raise GraphError(what, remedy="Give the ONNX file that the engine was made from")
        advice = _ADVICE.get(node.domain, "Export the model with standard operators, or with the custom ones as ONNX functions")
        raise GraphError(f"{path}: {called(node)} is a custom operator of the domain '{node.domain}'", remedy=advice)


def refuse_control(model: ir.Model, path: Path) -> None:
    """Raises GraphError for what is left of control flow and sequences once constants are folded."""
    for node in model.graph:
        if node.op_type == "If":
            what = f"{path}: {called(node)} decides by the image or by the size of the batch"
            raise GraphError(what, remedy="Export the model without it; after `squeeze()` name the dimension: squeeze(1)")
        if node.op_type in _CONTROL:
            raise GraphError(
                f"{path}: {called(node)} repeats a part of the graph", remedy="Export the model with the loop unrolled"
            )
        if "Sequence" in node.op_type and node.op_type != "ConcatFromSequence":
            remedy = "Name a tensor before it in `reference.output`"
            raise GraphError(f"{path}: {called(node)} works on a sequence of tensors", remedy=remedy)


def quantized(model: ir.Model, path: Path) -> str | None:
    """What says that a graph is quantized already, in words; None where it is not. Raises GraphError for integer operators."""
    found = None
    for node in model.graph:
        if node.op_type in INTEGER:
            raise _quantized(node, path)
        if node.op_type == "DynamicQuantizeLinear":
            what = f"{path} is quantized already, and dynamically: {called(node)}"
            raise GraphError(what, remedy="Give the floating-point file that it was made from")
        if node.op_type in QDQ:
            found = found or f"{called(node)}"
    return found


def _quantized(node: ir.Node, path: Path) -> GraphError:
    what = f"{path} is quantized already, in integer operators: {called(node)}"
    return GraphError(what, remedy="Give the floating-point file that it was made from, or one in the QDQ format")
