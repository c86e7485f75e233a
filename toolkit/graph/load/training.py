"""Training mode: Dropout and BatchNormalization that were exported as they train become what they are in inference.

1. BatchNormalization with `training_mode`, or with the statistics among its outputs, uses its running mean and variance.
2. Dropout passes its input on, whatever its mode.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from toolkit.errors import GraphError
from toolkit.graph.edit import constant


def to_inference(model: ir.Model, path: Path) -> tuple[str, ...]:
    """In place; notes on what was changed. Raises GraphError where something reads what only training makes."""
    changed = []
    for node in list(model.graph):
        if node.domain or node.op_type not in ("BatchNormalization", "Dropout"):
            continue
        if _trains(node):
            changed.append(node.name or node.outputs[0].name or node.op_type)
        for extra in node.outputs[1:]:
            if extra.uses() or extra.is_graph_output():
                what = f"{path}: something reads '{extra.name}', which {node.op_type} '{node.name}' makes only in training"
                raise GraphError(what, remedy="Export the model in inference mode: model.eval()")
        node.resize_outputs(1)
        if node.op_type == "BatchNormalization":
            node.attributes.pop("training_mode", None)
        elif len(node.inputs) > 2:
            node.resize_inputs(2)
    if not changed:
        return ()
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return (f"the file was exported in training mode ('{changed[0]}'{more}); it is taken as in inference",)


def _trains(node: ir.Node) -> bool:
    if node.op_type == "BatchNormalization":
        mode = node.attributes.get("training_mode")
        return bool(mode.as_int()) if mode is not None else len(node.outputs) > 1
    flag = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return flag is not None and bool(flag.any())
