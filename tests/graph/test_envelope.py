"""Each way of rounding computes what it says, on sums whose every rounding is known."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from toolkit.graph.edit import finish
from toolkit.graph.envelope import PARTS, roundings
from toolkit.graph.fp16 import to_fp16
from toolkit.types import Float

CHANNELS = PARTS * 16
GEMM = f"""
g (float[N,{CHANNELS}] x) => (float[N,1] y) <float[1] one = {{-1.0}}> {{
  product = Gemm<transB = 1>(x, weight)
  y = Add(product, one)
}}"""
CONV = f"""
g (float[N,{CHANNELS},1,1] x) => (float[N,1,1,1] y) {{
  y = Conv(x, weight)
}}"""
MATMUL = f"""
g (float[N,{CHANNELS}] x) => (float[N,1] y) {{
  y = MatMul(x, weight)
}}"""


def half(text: str, shape: tuple[int, ...]) -> ir.Model:
    """2048 in the first part of the sum, and 1 in each of the 15 others."""
    weight = np.full(CHANNELS, 1 / 16, np.float32)
    weight[:16] = 2048 / 16
    model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["": 18]>' + text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight.reshape(shape), "weight"))
    graph = ir.from_proto(model)
    for node in graph.graph:
        node.name = node.outputs[0].name
    return to_fp16(finish(graph))


def answers(graph: ir.Model, x: Float) -> dict[str, float]:
    return {name: float(live()(x).reshape(-1)[0]) for name, live in roundings(graph).items()}


@pytest.mark.parametrize(
    ("text", "shape", "tail"),
    [(CONV, (1, CHANNELS, 1, 1), (1, 1)), (MATMUL, (CHANNELS, 1), ())],
)
def test_a_sum_in_fp16_stands_still_where_ones_are_too_small(text: str, shape: tuple[int, ...], tail: tuple[int, ...]) -> None:
    """Beyond 2048 FP16 counts in twos, ties to even: 2048 + 1 stays 2048, fifteen times; at once it is 2063, kept as 2064."""
    found = answers(half(text, shape), np.ones((1, CHANNELS, *tail), np.float32))
    assert found == {"as typed": 2064, "epilogues in FP32": 2064, "FP16 accumulators": 2048, "nothing rounded": 2063}


def test_an_epilogue_in_fp32_sees_the_sum_before_it_is_rounded() -> None:
    """2063 - 1 is 2062; 2063 is 2064 once rounded, and 2064 - 1 = 2063 becomes 2064 again."""
    found = answers(half(GEMM, (1, CHANNELS)), np.ones((1, CHANNELS), np.float32))
    assert found == {"as typed": 2064, "epilogues in FP32": 2062, "FP16 accumulators": 2047, "nothing rounded": 2062}


def test_a_graph_without_half_precision_leaves_no_choice() -> None:
    text = '<ir_version: 9, opset_import: ["": 18]> g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }'
    model = onnx.parser.parse_model(text)
    assert roundings(ir.from_proto(model)) == {}
