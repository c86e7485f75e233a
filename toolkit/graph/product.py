"""Product: graphs of one large matrix product, which set the roofs that engines are held against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE = 2048


def products(size: int = SIZE) -> dict[str, bytes]:
    """Serialised ONNX by type of the operands: `fp32`, and `int8` (uint8 by int8 into int32, as quantised layers compute)."""
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
