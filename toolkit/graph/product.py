"""Product: graphs that measure a machine. One large matrix product sets a roof; a chain of small layers shows the hand-offs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE = 2048
LAYERS, CHANNELS, EDGE = 30, 32, 14  # each layer takes some microseconds: about as long as handing it to another core does


def products(size: int = SIZE) -> dict[str, bytes]:
    """Serialized ONNX by type of the operands: `fp32`, and `int8` (uint8 by int8 into int32, as quantized layers compute)."""
    random = np.random.default_rng(0)
    floats = random.standard_normal((size, size), dtype=np.float32)
    integers = random.integers(-127, 127, (size, size), dtype=np.int8)
    return {
        "fp32": _product("MatMul", TensorProto.FLOAT, floats, TensorProto.FLOAT),
        "int8": _product("MatMulInteger", TensorProto.UINT8, integers, TensorProto.INT32),
    }


def _product(operator: str, left: int, right: NDArray[Any], out: int) -> bytes:
    graph = helper.make_graph(
        [helper.make_node(operator, ["left", "right"], ["out"])],
        operator,
        [helper.make_tensor_value_info("left", left, right.shape)],
        [helper.make_tensor_value_info("out", out, right.shape)],
        [numpy_helper.from_array(right, "right")],
    )
    model: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    return model


def chain() -> bytes:
    """Serialized ONNX: 1x1 convolutions one after the other, each just large enough to be shared among threads."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((CHANNELS, CHANNELS, 1, 1), dtype=np.float32) / CHANNELS
    names = ["in", *(f"value{i}" for i in range(LAYERS - 1)), "out"]
    nodes = [helper.make_node("Conv", [names[i], "weight"], [names[i + 1]]) for i in range(LAYERS)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CHANNELS, EDGE, EDGE]) for name in ("in", "out")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [numpy_helper.from_array(weight, "weight")])
    model: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    return model
