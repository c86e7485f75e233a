"""Work, mean outputs, biases, shared offsets, magnitudes and overflows of small graphs, worked out by hand or by torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from tests.graph.networks import run
from tests.graph.test_qdq_values import network
from toolkit.errors import CalibrationError, GraphError
from toolkit.graph.bias import mean_output, shift_bias
from toolkit.graph.channels import Channels, measure
from toolkit.graph.edit import constant
from toolkit.graph.magnitude import magnitudes
from toolkit.graph.offsets import joined_branches, share_offsets
from toolkit.graph.overflow import LIMIT, fp16_overflow
from toolkit.graph.work import layers, work, work_of
from toolkit.types import Array

HEAD = '<ir_version: 9, opset_import: ["" : 19, "own" : 1]>\nnet (float[N, 2, 4, 6] x) => (float[N, 3] y)\n'
END = "m = GlobalAveragePool (d)\n f = Flatten (m)\n y = Gemm <transB = 1> (f, g)"
RNG = np.random.default_rng(7)


def arrays(**more: Array) -> dict[str, Array]:
    shapes: dict[str, tuple[int, ...]] = {
        "w1": (4, 2, 3, 3), "w2": (4, 2, 1, 1), "w3": (4, 4, 1, 1), "b1": (4,), "b2": (4,), "g": (3, 4), "gt": (4, 3),
        "up": (2, 4, 2, 2), "halves": (2, 2, 2, 2), "k": (1, 4, 1, 1),
    }  # fmt: skip
    random = np.random.default_rng(1)
    return {**{name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}, **more}


def graph(body: str, **more: Array) -> ir.Model:
    end = "" if "y =" in body else END
    return network(f"{HEAD}{{\n{body}\n{end}\n}}", arrays(**more))


def by_name(model: ir.Model, output: str) -> ir.Node:
    return next(node for node in model.graph if node.outputs[0].name == output)


def counted(model: ir.Model) -> dict[str, tuple[int, int, int]]:
    return {str(n.outputs[0].name): (w.macs, w.weight_bytes, w.activation_bytes) for n, w in layers(model)}


def test_multiply_adds_and_bytes_of_each_kind_of_layer() -> None:
    """x is 2 x 4 x 6; an image's operands once from or to memory, the weight's too, in float32."""
    body = "a = Conv <pads = [1, 1, 1, 1]> (x, w1)\n d = Conv (a, w3)"
    assert counted(graph(body)) == {
        "a": (4 * 24 * 18, 4 * 72, 4 * (48 + 96)),
        "d": (4 * 24 * 4, 4 * 16, 4 * (96 + 96)),
        "y": (12, 48, 4 * (4 + 3)),
    }
    total = work(graph(body))
    assert (total.macs, total.weight_bytes) == (1728 + 384 + 12, 288 + 64 + 48)
    assert total.activation_bytes == 4 * (144 + 192 + 7)
    grouped = "a = Conv <group = 2, pads = [1, 1, 1, 1]> (x, one)\n d = Conv (a, w3)"
    assert counted(graph(grouped, one=np.ones((4, 1, 3, 3), np.float32)))["a"][0] == 4 * 24 * 9
    assert counted(graph("d = ConvTranspose <strides = [2, 2]> (x, up)"))["d"] == (4 * 96 * 2 * 4, 4 * 32, 4 * (48 + 384))
    halves = counted(graph("d = ConvTranspose <strides = [2, 2], group = 2> (x, halves)"))
    assert halves["d"][0] == 4 * 96 * 2 * 4 // 2
    flat = "d = Conv (x, w2)\n m = GlobalAveragePool (d)\n f = Flatten (m)\n"
    assert counted(graph(f"{flat} y = Gemm (f, gt)"))["y"] == (12, 48, 28)
    assert counted(graph(f"{flat} y = MatMul (f, gt)"))["y"] == (12, 48, 28)


def test_what_is_not_known_or_not_of_onnx_is_left_out() -> None:
    made = graph("a = own.Conv (x, w2)\n d = Relu (a)")
    assert counted(made) == {}  # nor are the shapes known behind it
    made = graph("d = Conv (x, w2)")
    by_name(made, "d").outputs[0].shape = None
    assert list(counted(made)) == ["y"]
    made.graph.inputs[0].shape = ir.Shape(["N", 2, "H", 6])
    assert counted(made) == {"y": (12, 48, 28)}


def test_an_operand_counts_at_its_quantized_size() -> None:
    body = "q = QuantizeLinear (x, s, z)\n e = DequantizeLinear (q, s, z)\n v = DequantizeLinear (wq, s, zw)\n d = Conv (e, v)"
    more = {"s": np.float32(0.1), "z": np.uint8(0), "zw": np.int8(0), "wq": np.ones((4, 2, 1, 1), np.int8)}
    made = graph(body, **{name: np.asarray(value) for name, value in more.items()})
    assert counted(made)["d"] == (4 * 24 * 2, 8, 48 + 96)
    relu = graph(body.replace("d = Conv (e, v)", "r = Relu (e)\n d = Conv (r, v)"), **{k: np.asarray(v) for k, v in more.items()})
    assert counted(relu)["d"] == (4 * 24 * 2, 8, 48 + 96)
    half = graph("h = Cast <to = 10> (x)\n e = Cast <to = 1> (h)\n d = Conv (e, w2)")
    assert counted(half)["d"] == (4 * 24 * 2, 32, 4 * (48 + 96))  # what it comes from in the end is x, of four bytes


def test_shapes_that_are_not_told_are_inferred() -> None:
    made = graph("a = Conv <pads = [1, 1, 1, 1]> (x, w1)\n d = Conv (a, w3)")
    for node in made.graph:
        node.outputs[0].shape = None
    assert work_of(made).macs == 1728 + 384 + 12


@pytest.mark.parametrize("weight", ["w3", "v"])
def test_work_that_cannot_be_counted_is_said(weight: str) -> None:
    """Behind an operator that onnx does not know the shapes are open, and the sum would be of the layers before it."""
    more = {"s": np.float32(0.1), "zw": np.int8(0), "wq": np.ones((4, 4, 1, 1), np.int8)}
    pair = "v = DequantizeLinear (wq, s, zw)\n" if weight == "v" else ""
    body = f"{pair} a = Conv (x, w2)\n b = own.Mystery (a)\n d = Conv (b, {weight})"
    made = graph(body, **{name: np.asarray(value) for name, value in more.items()})
    for node in made.graph:
        node.outputs[0].shape = None
    with pytest.raises(GraphError, match="the shapes of 2 layers"):
        work_of(made)


@pytest.mark.parametrize("operands", ["a, x", "x, a"])
def test_a_product_of_two_activations_need_not_be_counted(operands: str) -> None:
    made = graph(f"a = own.Mystery (x)\n b = MatMul ({operands})\n d = Conv (x, w2)")
    for node in made.graph:
        node.outputs[0].shape = None
    assert work_of(made).macs == 4 * 24 * 2 + 12


def test_what_is_cast_counts_as_what_it_was_before() -> None:
    made = graph("h = Cast <to = 10> (x)\n c = Conv (h, w)\n d = Cast <to = 1> (c)", w=np.ones((4, 2, 1, 1), np.float16))
    assert counted(made)["c"] == (4 * 24 * 2, 16, 4 * (48 + 96))


def test_a_layer_of_open_size_is_not_counted_and_one_of_unknown_type_is_of_four_bytes() -> None:
    made = graph("a = own.Mystery (x)\n d = Conv (a, w2)")
    value = by_name(made, "a").outputs[0]
    value.shape = ir.Shape(["N", 2, "H", 6])
    by_name(made, "d").outputs[0].shape = ir.Shape(["N", 4, 4, 6])
    assert "d" not in counted(made)
    value.shape = ir.Shape(["N", 2, 4, 6])
    assert value.dtype is None
    assert counted(made)["d"] == (4 * 24 * 2, 32, 4 * (48 + 96))


CONVS: list[dict[str, Any]] = [
    {},
    {"pads": [1, 2, 0, 1]},
    {"strides": [2, 1]},
    {"strides": [1, 2], "pads": [1, 1, 1, 1]},
    {"dilations": [2, 1], "pads": [2, 0, 2, 0]},
    {"dilations": [1, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"group": 2, "pads": [1, 1, 1, 1]},
]


@pytest.mark.parametrize("attributes", CONVS)
def test_the_mean_output_of_a_convolution_is_that_of_torch(attributes: dict[str, Any]) -> None:
    groups = attributes.get("group", 1)
    weight, mean = RNG.normal(size=(6, 4 // groups, 3, 2)), RNG.normal(size=(4, 7, 9))
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    padded = torch.nn.functional.pad(torch.from_numpy(mean)[None], (left, right, top, bottom))
    strides, spread = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    wanted = torch.nn.functional.conv2d(padded, torch.from_numpy(weight), None, strides, 0, spread, groups)
    node = ir.node("Conv", [ir.Value(name="x")], attributes)
    np.testing.assert_allclose(mean_output(node, weight, mean), wanted.mean((0, 2, 3)).numpy(), rtol=1e-10)


def test_the_mean_output_of_a_product() -> None:
    weight, mean = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 1, 1))
    inputs = [ir.Value(name="x")]
    np.testing.assert_allclose(mean_output(ir.node("Gemm", inputs, {"transB": 1}), weight, mean), weight @ mean.ravel())
    np.testing.assert_allclose(mean_output(ir.node("Gemm", inputs), weight.T, mean), weight @ mean.ravel())
    np.testing.assert_allclose(mean_output(ir.node("MatMul", inputs), weight.T, mean), weight @ mean.ravel())


SHIFT = np.array([1.0, -2.0, 3.0, 0.5])


def test_a_shift_goes_into_the_bias() -> None:
    made = graph("a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)\n c = Conv (a, w3, b1)\n d = Conv (c, w3)")
    first, second, bare = (by_name(made, name) for name in "acd")
    shift_bias(first, SHIFT)
    assert constant(first.inputs[2]) is not None and first.inputs[2] is not second.inputs[2]
    np.testing.assert_allclose(constant(first.inputs[2]), arrays()["b1"] + SHIFT, rtol=1e-6)
    np.testing.assert_array_equal(constant(second.inputs[2]), arrays()["b1"])  # the other reader's stays
    assert (first.inputs[2].name or "").startswith("b1")  # type: ignore[union-attr]
    shift_bias(second, SHIFT)
    assert second.inputs[2] is not None and second.inputs[2].name == "b1"
    np.testing.assert_allclose(constant(second.inputs[2]), arrays()["b1"] + SHIFT, rtol=1e-6)
    shift_bias(bare, SHIFT)
    assert bare.inputs[2] is not None and bare.inputs[2].name == "node_d.bias"
    np.testing.assert_array_equal(constant(bare.inputs[2]), SHIFT.astype(np.float32))
    assert all(constant(node.inputs[2]).dtype == np.float32 for node in (first, second, bare))  # type: ignore[union-attr]


def test_what_has_no_bias_that_can_be_shifted_is_left() -> None:
    made = graph("d = Conv <pads = [1, 1, 1, 1]> (x, w1)\n m = GlobalAveragePool (d)\n f = Flatten (m)\n y = MatMul (f, gt)")
    product = by_name(made, "y")
    shift_bias(product, SHIFT[:3])
    assert len(product.inputs) == 2
    made = graph("d = Conv <pads = [1, 1, 1, 1]> (x, w1)\n m = GlobalAveragePool (d)\n f = Flatten (m)\n y = Gemm (f, gt)")
    plain = by_name(made, "y")
    shift_bias(plain, SHIFT[:3])
    assert len(plain.inputs) == 2
    pooled = "d = Conv (x, w2)\n m = GlobalAveragePool (d)\n f = Flatten (m)\n"
    wide = graph(f"{pooled} y = Gemm (f, gt, one)", one=np.ones(1, np.float32))
    gemm = by_name(wide, "y")
    shift_bias(gemm, SHIFT[:3])  # one number for all columns cannot take three
    np.testing.assert_array_equal(constant(gemm.inputs[2]), np.ones(1))
    row = graph(f"{pooled} y = Gemm (f, gt, c)", c=np.ones((1, 3), np.float32))
    gemm = by_name(row, "y")
    shift_bias(gemm, SHIFT[:3])
    np.testing.assert_allclose(constant(gemm.inputs[2]), 1 + SHIFT[None, :3])


JOIN = "a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)\n c = Conv (x, w2, b2)\n s = {0}\n d = Conv (s, w3)"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (JOIN.format("Add (a, c)"), ["a", "c"]),
        (JOIN.format("Add (c, a)"), ["c", "a"]),
        (JOIN.format("Mul (a, c)"), []),
        (JOIN.format("own.Add (a, c)"), []),
        (JOIN.format("Add (a, a)"), []),
        (JOIN.format("Add (a, k)"), []),
        ("a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)\n c = Conv (x, w2)\n s = Add (a, c)\n d = Conv (s, w3)", []),  # no bias
        ("a = Conv (x, w2, b1)\n r = Relu (a)\n c = Conv (x, w2, b2)\n s = Add (r, c)\n d = Conv (s, w3)", []),
        (JOIN.format("Add (a, c)") + "\n e = Relu (a)\n", ["a", "c"]),  # nobody reads e: it goes
        ("a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)\n c = Conv (x, w2, b2)\n s = Add (a, c)\n d = Add (s, a)", []),
    ],
)
def test_branches_are_two_convolutions_that_only_their_sum_reads(body: str, expected: list[str]) -> None:
    assert joined_branches(graph(body)) == expected


def test_offsets_are_shared_half_and_half_and_the_function_stays() -> None:
    made = graph(JOIN.format("Add (a, c)"))
    means = np.array([1.0, 2.0, 3.0, 4.0]), np.array([5.0, 0.0, 3.0, -4.0])
    seen = {name: Channels(mean, mean, mean) for name, mean in zip("ac", means, strict=True)}
    shared = share_offsets(made, seen)
    shift = (means[1] - means[0]) / 2
    for name, bias, move in (("a", "b1", shift), ("c", "b2", -shift)):
        node = by_name(shared, name)
        assert node.inputs[2] is not None and node.inputs[2].name == f"{bias}.shared"
        np.testing.assert_allclose(constant(node.inputs[2]), arrays()[bias] + move, rtol=1e-6)
        assert constant(node.inputs[2]).dtype == np.float32  # type: ignore[union-attr]
        assert by_name(made, name).inputs[2] is made.graph.initializers[bias]
    batch = RNG.normal(size=(4, 2, 4, 6)).astype(np.float32)
    np.testing.assert_allclose(run(shared, batch), run(made, batch), rtol=1e-4, atol=1e-5)
    lone = graph("d = Conv (x, w2)")
    assert share_offsets(lone, {}) is not lone


def test_the_largest_magnitude_of_every_tensor_over_all_batches() -> None:
    made = graph("a = Conv <pads = [1, 1, 1, 1]> (x, w1)\n r = Relu (a)\n c = Conv (r, w3)\n i = Sigmoid (c)\n d = Mul (i, c)")
    batch = RNG.normal(size=(6, 2, 4, 6)).astype(np.float32)
    batch[4, 0, 0, 0] = -50
    found = magnitudes(made, [batch[:3], batch[3:]], threads=1)
    assert set(found) == {"x", "r", "c", "i", "d", "m", "f", "y"}  # of a and r the one that counts
    assert found["x"] == 50
    assert found["y"] == pytest.approx(np.abs(run(made, batch)).max(), rel=1e-5)
    assert found == magnitudes(made, [batch], threads=1)
    assert 0 < found["i"] <= 1
    broken = batch.copy()
    broken[0, 0, 0, 0] = np.inf
    assert magnitudes(made, [broken, batch], threads=1)["x"] == math.inf
    assert magnitudes(made, [], threads=1) == dict.fromkeys(found, 0.0)


@pytest.mark.parametrize("place", [0, 1, 17, 47])
def test_a_tensor_with_one_nan_is_infinite_wherever_it_stands(place: int) -> None:
    batch = np.ones((1, 2, 4, 6), np.float32)
    batch.ravel()[place] = -1
    found = magnitudes(graph("a = Sqrt (x)\n d = Conv (a, w2)"), [batch, np.abs(batch)], threads=1)
    assert found == {"x": 1.0, **dict.fromkeys("adfmy", math.inf)}


def test_the_sum_of_large_magnitudes_is_no_infinity() -> None:
    large = np.full((1, 2, 4, 6), 3e38, np.float32)
    found = magnitudes(graph("d = Conv (x, w2)", w2=np.full((4, 2, 1, 1), 0.25, np.float32)), [large], threads=1)
    assert found["x"] == found["d"] * 2 == np.float32(3e38)


@pytest.mark.parametrize("place", [0, 1, 17, 23])
def test_a_channel_with_one_nan_is_refused_wherever_it_stands(place: int) -> None:
    batch = np.ones((1, 2, 4, 6), np.float32)
    batch[0, 1].ravel()[place] = -1
    with pytest.raises(CalibrationError, match="tensor 'a' holds a NaN or an infinity for image 1"):
        measure(graph("a = Sqrt (x)\n d = Conv (a, w2)"), [np.abs(batch), batch], ["a"])


def test_what_is_read_by_a_relu_and_by_others_counts() -> None:
    made = graph("a = Conv <pads = [1, 1, 1, 1]> (x, w1)\n r = Relu (a)\n d = Add (r, a)")
    assert {"a", "r"} <= set(magnitudes(made, [np.ones((1, 2, 4, 6), np.float32)], threads=1))


@pytest.mark.parametrize(
    ("body", "tensor", "nodes"),
    [
        ("a = Conv (x, w2)\n r = Relu (a)\n d = Conv (r, w3)", "r", ["a", "r", "d"]),
        ("a = Conv (x, w2)\n r = Sigmoid (a)\n d = Conv (r, w3)", "r", ["r", "d"]),
        ("a = Conv (x, w2)\n r = Sigmoid (a)\n d = Conv (r, w3)", "a", ["a", "r"]),
        ("a = Conv (x, w2)\n t = Relu (a)\n r = Identity (t)\n d = Conv (r, w3)", "r", ["a", "t", "r", "d"]),
        ("a = Conv (x, w2)\n t = Relu (a)\n r = Identity (t)\n d = Conv (r, w3)", "t", ["a", "t", "r", "d"]),
        ("a = Conv (x, w2)\n c = Conv (x, w2)\n s = Add (a, c)\n d = Conv (s, w3)", "s", ["a", "c", "s", "d"]),
        ("a = Conv (x, w2)\n t = Relu (a)\n s = Add (t, k)\n d = Conv (s, w3)", "s", ["s", "d"]),
        ("a = Conv (x, w2)\n s = Add (a, k)\n r = Relu (s)\n d = Conv (r, w3)", "r", ["a", "s", "r", "d"]),
        ("a = Conv (x, w2)\n c = Conv (a, w3)\n d = Add (c, a)", "a", ["a", "c", "d"]),
        ("d = Conv (x, w2)", "x", ["d"]),
    ],
)
def test_a_tensor_that_float16_cannot_hold_is_kept_with_its_makers_and_readers(body: str, tensor: str, nodes: list[str]) -> None:
    made = graph(body)
    (found,) = fp16_overflow(made, {tensor: LIMIT * 2, "other": 1e30})
    assert (found.tensor, found.magnitude) == (tensor, LIMIT * 2)
    assert list(found.nodes) == [f"node_{name}" for name in nodes]
    assert str(found) == f"FP32 kept for {', '.join(found.nodes)}: '{tensor}' reaches 6.55e+04, and float16 ends at 65504"
    assert fp16_overflow(made, {tensor: LIMIT}) == ()
    assert fp16_overflow(made, {}) == ()


def test_the_limit_is_half_of_what_float16_holds_and_tensors_come_in_graph_order() -> None:
    assert LIMIT == 32752
    made = graph("a = Conv (x, w2)\n c = Conv (a, w3)\n d = Conv (c, w3)")
    assert [one.tensor for one in fp16_overflow(made, {"d": 1e5, "a": 1e5, "x": 1e5})] == ["x", "a", "d"]
