"""Each way of rounding computes what it says, on sums whose every rounding is known."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from tests.graph.test_fp8 import Wide
from toolkit.graph.edit import finish
from toolkit.graph.envelope import PARTS, in_partial_sums, roundings
from toolkit.graph.fp16 import to_fp16
from toolkit.graph.qdq import quantize
from toolkit.recipe import Calibration, Precision
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


EXACT = {"sums in another order": 2064}  # of whole numbers: no order tells


def half(text: str, shape: tuple[int, ...], weight: Float | None = None) -> ir.Model:
    """2048 in the first part of the sum, and 1 in each of the 15 others; or with another weight."""
    if weight is None:
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
    assert found == {"as typed": 2064, "epilogues in FP32": 2064, "FP16 accumulators": 2048, **EXACT, "nothing rounded": 2063}


def test_an_epilogue_in_fp32_sees_the_sum_before_it_is_rounded() -> None:
    """2063 - 1 is 2062; 2063 is 2064 once rounded, and 2064 - 1 = 2063 becomes 2064 again."""
    found = answers(half(GEMM, (1, CHANNELS)), np.ones((1, CHANNELS), np.float32))
    assert found == {"as typed": 2064, "epilogues in FP32": 2062, "FP16 accumulators": 2047, **EXACT, "nothing rounded": 2062}


def test_a_sum_in_another_order_is_another_number() -> None:
    """From the last part on: -2^24, then 14 ones, which FP32 holds, then 2^24. From the first on the ones vanish in 2^24."""
    weight, x = np.full(CHANNELS, 1 / 16, np.float32), np.ones((1, CHANNELS), np.float32)
    weight[:16], weight[-16:] = 1024, -1024
    x[0, :16] = x[0, -16:] = 1024
    assert answers(half(MATMUL, (CHANNELS, 1), weight), x)["sums in another order"] == 14


def test_an_fp8_layer_sums_in_few_bits_too_and_an_int8_layer_does_not() -> None:
    """128 and 1/16 are whole steps of E4M3 at the scale of a weight whose largest value is 128."""
    behind = MATMUL.replace("y = MatMul(x", "h = Add(x, x)\n  y = MatMul(h")  # a layer that reads the image stays out of FP8
    plain = onnx.parser.parse_model('<ir_version: 9, opset_import: ["": 18]>' + behind)
    weight = np.where(np.arange(CHANNELS) < 16, 128, 1 / 16).astype(np.float32).reshape(CHANNELS, 1)
    plain.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    for node in plain.graph.node:
        node.name = node.output[0]
    split = {}
    for kind in ("fp8", "int8"):
        precision = Precision(**{kind: True}, weights="absmax")
        typed = quantize(finish(ir.from_proto(plain)), Wide(), precision, Calibration(method="minmax"), scheme="tensorrt")
        graph = to_fp16(typed)
        split[kind] = sum(node.op_type == "MatMul" for node in in_partial_sums(graph).graph)
        if kind == "fp8":
            found = answers(graph, np.full((1, CHANNELS), 0.5, np.float32))
            assert (found["as typed"], found["FP16 accumulators"]) == (2064, 2048)
    assert split == {"fp8": PARTS, "int8": 1}


def test_a_graph_without_half_precision_leaves_no_choice() -> None:
    text = '<ir_version: 9, opset_import: ["": 18]> g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }'
    model = onnx.parser.parse_model(text)
    assert roundings(ir.from_proto(model)) == {}
