"""Strip: a typed graph -> the FP32 graph it stands for, as far as it can be had back: pairs off, types float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import finish
from toolkit.why.weave import Weaver


def stripped(typed: ir.Model) -> ir.Model:
    """A copy without rounding: activations pass where they were quantized, weights keep the values that they were rounded to.

    The tensors keep their names. Raises GraphError where a node holds a graph of its own.
    """
    weaver = Weaver()
    source = typed.graph.inputs[0]
    entry = weaver.input(source.name or "input", [d if isinstance(d, int) else "N" for d in source.shape or ()])
    values = {source: entry}
    for node in typed.graph:
        before = dict(values)
        weaver.copy([node], values, "none")
        for output in node.outputs:
            if output in values and output.name and values[output] not in before.values():
                values[output].name = output.name
                values[output].shape, values[output].type = output.shape, _type(output)
    for node in weaver.nodes:
        node.name = (node.name or "").rpartition("/")[0]
    ends = [weaver.op("Identity", [values[v]], v.name) if values[v].name != v.name else values[v] for v in _ends(typed)]
    return finish(weaver.model([entry], ends, typed.opset_imports[""]))


def _ends(model: ir.Model) -> list[ir.Value]:
    return list(model.graph.outputs)


def _type(value: ir.Value) -> ir.TypeProtocol | None:
    if value.dtype in (ir.DataType.FLOAT16, ir.DataType.FLOAT):
        return ir.TensorType(ir.DataType.FLOAT)
    return value.type if value.dtype is None or np.dtype(value.dtype.numpy()).kind != "f" else ir.TensorType(ir.DataType.FLOAT)
