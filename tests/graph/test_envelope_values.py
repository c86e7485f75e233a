"""Sums in parts, where a layer has a bias, groups, few channels or weights in FP8: whole numbers, rounded by hand."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.test_envelope import CHANNELS, CONV, EXACT, MATMUL, answers, half
from toolkit.graph.envelope import _weight, in_partial_sums
from toolkit.types import Array

BIAS = "<float[1] b = {3.0}>"
GEMM = MATMUL.replace("(float[N,1] y)", f"(float[N,1] y) {BIAS}").replace("MatMul(x, weight)", "Gemm(x, weight, b)")
WITH_BIAS = [
    (GEMM, (CHANNELS, 1), ()),
    (GEMM.replace("Gemm(", "Gemm<transB = 1>("), (1, CHANNELS), ()),
    (CONV.replace("1,1] y)", f"1,1] y) {BIAS}").replace("weight)", "weight, b)"), (1, CHANNELS, 1, 1), (1, 1)),
]


@pytest.mark.parametrize(("text", "shape", "tail"), WITH_BIAS, ids=["columns", "rows", "conv"])
def test_a_bias_is_added_once_and_first(text: str, shape: tuple[int, ...], tail: tuple[int, ...]) -> None:
    """2048 + 3 is 2052 in FP16, in twos and ties to even, and 15 more ones do not move it; at once it is 2066."""
    found = answers(half(text, shape), np.ones((1, CHANNELS, *tail), np.float32))
    whole = dict.fromkeys(("as typed", "epilogues in FP32", *EXACT, "nothing rounded"), 2066)
    assert found == {**whole, "FP16 accumulators": 2052}


def test_groups_are_left_whole() -> None:
    """2048 and 7 ones, beside a group of 8 ones."""
    text = CONV.replace("Conv(", "Conv<group = 2>(").replace("N,1,1,1] y", "N,2,1,1] y")
    found = answers(half(text, (2, CHANNELS // 2, 1, 1)), np.ones((1, CHANNELS, 1, 1), np.float32))
    assert found["as typed"] == found["FP16 accumulators"] == 2056


@pytest.mark.parametrize(("channels", "rounded"), [(31, 2052), (32, 2050)])
def test_two_parts_from_32_channels_on(channels: int, rounded: float) -> None:
    """2049 and 2: 2049 alone becomes 2048, the sum of 2051 becomes 2052."""
    weight = np.full(channels, 2 / 16, np.float32)
    weight[:15], weight[15], weight[-1] = 128, 129, 2 - (channels - 17) / 8
    found = answers(half(MATMUL.replace(str(CHANNELS), str(channels)), (channels, 1), weight), np.ones((1, channels), np.float32))
    assert (found["as typed"], found["nothing rounded"], found["FP16 accumulators"]) == (2052, 2051, rounded)


def test_names_and_ends_stay() -> None:
    graph = half(MATMUL, (CHANNELS, 1))
    split = in_partial_sums(graph)
    assert [value.name for value in split.graph.outputs] == [value.name for value in graph.graph.outputs]
    named = [node.name for node in split.graph]
    assert len(set(named)) == len(named) and {"y.split", "y.part0", "y.part15", "y.sum1", "y.sum15"} <= set(named)


def dequantized(codes: Array, scale: Array, **attributes: int) -> ir.Value:
    operands = [ir.val(name, const_value=ir.tensor(array, name=name)) for name, array in (("codes", codes), ("scale", scale))]
    return ir.node("DequantizeLinear", operands, attributes=attributes).outputs[0]


CODES = np.array([[1, 2, -4], [8, 0.5, 16]], np.float32).astype(ml_dtypes.float8_e4m3fn)


@pytest.mark.parametrize(
    ("scale", "attributes", "wanted"),
    [
        (np.float32(0.5), {}, [[0.5, 1, -2], [4, 0.25, 8]]),
        (np.array([0.5, 1, 2], np.float32), {}, [[0.5, 2, -8], [4, 0.5, 32]]),
        (np.array([0.5, 2], np.float32), {"axis": 0}, [[0.5, 1, -2], [16, 1, 32]]),
        (np.array([0.5], np.float32), {"axis": 0}, [[0.5, 1, -2], [4, 0.25, 8]]),
    ],
)
def test_a_weight_in_fp8_is_its_codes_times_the_scale_of_each_channel(
    scale: Array, attributes: dict[str, int], wanted: Array
) -> None:
    found = _weight(dequantized(CODES, np.asarray(scale), **attributes))
    assert found is not None and found.dtype == np.float32 and found.tolist() == wanted


def test_what_is_cast_is_rounded_and_what_is_no_weight_of_floats_is_left() -> None:
    """1 + 2^-11 lies half way between two values of FP16; an INT8 layer adds up exactly."""
    inner = dequantized(CODES, np.array(1 + 2**-11, np.float32))
    cast = ir.node("Cast", [inner], attributes={"to": int(ir.DataType.FLOAT16)}).outputs[0]
    found = _weight(cast)
    assert found is not None and found.dtype == np.float32 and found.tolist() == CODES.astype(np.float32).tolist()
    assert _weight(dequantized(np.ones((2, 3), np.int8), np.array(1, np.float32))) is None
    assert _weight(None) is None and _weight(ir.Value(name="x")) is None
    asked = ir.node("DequantizeLinear", [ir.Value(name="x"), ir.val("s", const_value=ir.tensor(np.float32(1), name="s"))])
    assert _weight(asked.outputs[0]) is None
    assert _weight(ir.node("Cast", [ir.Value(name="x")], attributes={"to": 10}).outputs[0]) is None
