"""A small network with a residual block."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

TENSORS = ("input", "first", "branch", "sum", "logits")


def network(seed: int = 0, channels: int = 8) -> ir.Model:
    """input [N, 3, 12, 12] -> conv, relu `first` -> conv `branch`, add `first`, relu `sum` -> pool, `logits` [N, 5]."""
    random = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array((random.standard_normal(shape) * 0.3).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["conv1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv1"], ["first"]),
        helper.make_node("Conv", ["first", "w2"], ["branch"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["branch", "first"], ["add"]),
        helper.make_node("Relu", ["add"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3"], ["logits"], transB=1),
    ]
    shapes = {"w1": (channels, 3, 3, 3), "b1": (channels,), "w2": (channels, channels, 3, 3), "w3": (5, channels)}
    weights = [weight(name, *shape) for name, shape in shapes.items()]
    ends = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 12, 12]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5]),
    ]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], weights)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
