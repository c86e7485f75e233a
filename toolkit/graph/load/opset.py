"""Opset: a graph of an older operator set -> opset 18, which the passes are written for; a later one stays as it is."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.version_converter
import onnx_ir as ir

from toolkit.errors import GraphError

OPSET = 18
IR_VERSION = 8
SMALL = 1024  # values; a larger constant tells the converter nothing, and need not be copied for it


def to_opset(model: ir.Model, path: Path) -> ir.Model:
    """The model at opset 18 or later. Raises GraphError where an operator has no later form."""
    found = model.opset_imports.get("", 0)
    newest = onnx.defs.onnx_opset_version()
    if found > newest:
        what = f"{path} has opset {found}, and this onnx knows {newest} at most"
        raise GraphError(what, remedy=f"Update onnx, or export the model with opset {newest}")
    if found >= OPSET:
        return model
    model.ir_version = max(model.ir_version or 0, IR_VERSION)  # before 4, initializers had to be inputs as well
    weights = {name: value for name, value in model.graph.initializers.items() if _is_large(value)}
    for name, value in weights.items():  # a stand-in of the same type, so that files of any size can be converted
        del model.graph.initializers[name]
        model.graph.inputs.append(value)
    try:
        converted = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(model), OPSET))
    except Exception as error:  # the converter raises RuntimeError and others that it makes in C++
        said = str(error).strip().splitlines() or [type(error).__name__]
        what = f"{path} has opset {found}, and it cannot be brought to opset {OPSET}: {said[0]}"
        raise GraphError(what, remedy=f"Export it again with opset {OPSET} or later") from error
    for value in list(converted.graph.inputs):
        if value.name in weights:
            value.const_value = weights[value.name].const_value
            converted.graph.inputs.remove(value)
            converted.graph.register_initializer(value)
    return converted


def _is_large(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.size > SMALL
