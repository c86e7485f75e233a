"""Cost: how long a graph would take on a target that is not here. A model, and said to be one wherever it decides.

Tensor cores do twice the multiply-adds a second in FP16 that they do in TF32, and twice that in INT8; memory moves one byte in
the time of about 150 FP16 multiply-adds (NVIDIA's data sheets: A100 100, H100 148, L4 202). A layer takes the longer of the two
(Williams et al., 2009). The unit is the time of one FP16 multiply-add; only ratios mean anything.
"""

from __future__ import annotations

import onnx_ir as ir

from toolkit.graph.work import layers

WEIGHTS = {1: 0.5, 2: 1.0, 4: 2.0}  # time of a multiply-add by the bytes of its operands
BYTE = 150.0
STATED = "predicted by a cost model, not measured: INT8 at twice FP16's rate, FP16 at twice FP32's, 150 multiply-adds a byte"


def cost(graph: ir.Model, batch: int) -> float:
    """The model's time for one batch."""
    total = 0.0
    for node, work in layers(graph):
        moved = work.weight_bytes + batch * work.activation_bytes
        total += max(batch * work.macs * WEIGHTS[_bytes(node)], moved * BYTE)
    return total


def int8_share(graph: ir.Model) -> float:
    """The share of multiply-adds that INT8 does, 0 to 1."""
    each = [(work.macs, _bytes(node) == 1) for node, work in layers(graph)]
    return sum(macs for macs, narrow in each if narrow) / max(1, sum(macs for macs, _ in each))


def _bytes(node: ir.Node) -> int:
    """How wide the operands of a layer are: 1 where both come from a DequantizeLinear."""
    producers = [value.producer() if value is not None else None for value in node.inputs[:2]]
    if all(producer is not None and producer.op_type in ("DequantizeLinear", "Cast") for producer in producers):
        return 1
    data = node.inputs[0]
    return 2 if data is not None and data.dtype == ir.DataType.FLOAT16 else 4
