"""First: what the first BatchNormalization of a file knows of the images that it was trained on, before it is folded away."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import constant

BEFORE = ("Conv", "Transpose", "Cast", "Pad", "Identity", "Reshape", "Sub", "Mul", "Div", "Add")  # between the image and it


def first_norm(model: ir.Model) -> tuple[str, list[float], list[float]] | None:
    """(the tensor that holds its result once it is folded, beta, |gamma|); None where there is none, or it was never trained."""
    value: ir.Value = model.graph.inputs[0]
    for _ in range(8):
        readers = [node for node in value.consumers() if node.op_type not in ("Shape", "Size")]
        if len(readers) != 1 or readers[0].domain:
            return None
        node = readers[0]
        if node.op_type == "BatchNormalization":
            gamma, beta, mean, variance = (constant(other) for other in node.inputs[1:5])
            if gamma is None or beta is None or mean is None or variance is None or not np.abs(gamma).max(initial=0):
                return None
            if not mean.any() and (variance == 1).all():
                return None  # statistics as they are before any training
            made_by = value.producer()
            folded = made_by is not None and made_by.op_type == "Conv"
            name = value.name if folded else node.outputs[0].name
            return name or "", beta.astype(float).tolist(), np.abs(gamma).astype(float).tolist()
        if node.op_type not in BEFORE:
            return None
        value = node.outputs[0]
    return None
