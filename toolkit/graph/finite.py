"""Finite: where a graph's values turn NaN or infinite."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.graph.channels import SETTINGS
from toolkit.graph.fp8 import breaking
from toolkit.onnxfile import serialize
from toolkit.types import Float, Target

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, None)


def first_broken(model: ir.Model, image: Float) -> ir.Node | None:
    """The first node, in graph order, that answers NaN or infinity for `image` [1, ...]; None where none does."""
    probe = model.clone()
    nodes = [node for node in probe.graph if node.op_type != "QuantizeLinear" and node.outputs[0].dtype in FLOATS]
    for node in nodes:
        value = node.outputs[0]
        value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
        if not value.is_graph_output():
            probe.graph.outputs.append(value)
    session = onnxruntime.session(serialize(probe), Target("cpu"), SETTINGS, unfused=True, without=breaking(probe))
    names = [node.outputs[0].name or "" for node in nodes]
    found = session.run(names, {probe.graph.inputs[0].name: image})
    broken = next((node for node, values in zip(nodes, found, strict=True) if not np.isfinite(values).all()), None)
    return None if broken is None else next(node for node in model.graph if node.name == broken.name)
