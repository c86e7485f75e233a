"""Scales, zero points, weights and names that quantization writes into a small graph, worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from toolkit.calibration.ranges import Origin, Ranges, TensorRange
from toolkit.errors import CalibrationError, GraphError
from toolkit.graph.edit import constant, finish
from toolkit.graph.qdq import activation_scale, needs_vnni, quantize, quantized_layers, scheme_of
from toolkit.graph.rounded import Rounded
from toolkit.graph.weights import _round, fits_16_bits, limit_of, quantize_weight, rows_of, unrows
from toolkit.recipe import Calibration, Precision
from toolkit.types import Array, Target

TEXT = """
<ir_version: 9, opset_import: ["" : 18]>
net (float[N, 2, 4, 4] x) => (float[N, 3] y)
{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    r = Relu (a)
    c = Conv (r, w2)
    m = GlobalAveragePool (c)
    f = Flatten (m)
    y = Gemm <transB = 1> (f, w3, b3)
}
"""
LIMITS = {
    "x": (-2.0, 6.0),
    "a": (-9.0, 8.0),
    "r": (0.0, 8.0),
    "c": (-4.0, 12.0),
    "m": (-1.0, 2.0),
    "f": (-1.0, 2.0),
    "y": (-5.0, 5.0),
}


def weights(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = {"w1": (4, 2, 3, 3), "b1": (4,), "w2": (4, 4, 1, 1), "w3": (3, 4), "b3": (3,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def network(text: str = TEXT, arrays: Mapping[str, Array] | None = None) -> ir.Model:
    """The graph of `text` with named nodes (by their outputs) and these initializers, where it reads them."""
    proto = parser.parse_model(text)
    for node in proto.graph.node:
        node.name = f"node_{node.output[0]}"
    model = ir.from_proto(proto)
    given, used = {**weights(), **(arrays or {})}, {value.name: value for node in model.graph for value in node.inputs if value}
    for name, array in given.items():
        if name in used:
            value = used[name]
            value.const_value = ir.tensor(array, name=name)
            value.shape, value.type = ir.Shape(array.shape), ir.TensorType(value.const_value.dtype)
            model.graph.register_initializer(value)
    return finish(model)


def ranges(limits: Mapping[str, tuple[float, float]] = LIMITS, **thresholds: dict[str, float]) -> Ranges:
    """Min-max as given, and for single tensors thresholds of other methods."""
    made = {
        name: TensorRange(
            min=low, max=high, values=9, zeros=0, thresholds={"minmax": max(-low, high), **thresholds.get(name, {})}
        )
        for name, (low, high) in limits.items()
    }
    return Ranges(origin=Origin(layers="", weights=""), images=1, tensors=made)


def quantized(model: ir.Model | None = None, found: Ranges | None = None, **options: Any) -> ir.Model:
    precision = options.pop("precision", Precision(int8=True))
    calibration = options.pop("calibration", Calibration(method="minmax"))
    return quantize(model or network(), found or ranges(), precision, calibration, **options)


def pairs(model: ir.Model) -> dict[str, tuple[float, int, str]]:
    """(scale, zero point, its dtype) by the tensor that is quantized; the DequantizeLinear behind has the very same."""
    found = {}
    for node in model.graph:
        if node.op_type != "QuantizeLinear":
            continue
        value, step, zero = node.inputs
        (after,) = node.outputs[0].consumers()
        assert (after.op_type, after.inputs[1], after.inputs[2]) == ("DequantizeLinear", step, zero)
        assert value is not None
        (scale, point) = (constant(one) for one in (step, zero))
        assert scale is not None and point is not None
        found[value.name or ""] = (float(scale), int(point), str(point.dtype))
    return found


def weight_behind(model: ir.Model, name: str) -> tuple[Array, Array, Array, int | None]:
    """(int8 values, scales, zero points, axis) of the weight that node `name` reads."""
    node = next(node for node in model.graph if node.name == name)
    assert node.inputs[1] is not None
    dequantize = node.inputs[1].producer()
    assert dequantize is not None and dequantize.op_type == "DequantizeLinear"
    values, scale, zero = (constant(value) for value in dequantize.inputs)
    axis = dequantize.attributes.get("axis")
    assert values is not None and scale is not None and zero is not None
    return values, scale, zero, None if axis is None else axis.as_int()


@pytest.mark.parametrize(
    ("low", "high", "symmetric", "scale", "zero"),
    [
        (0.0, 6.0, False, 6 / 255, 0),
        (-3.0, 5.0, False, 8 / 255, 96),  # 3 / (8 / 255) = 95.6
        (-2.0, -1.0, False, 2 / 255, 255),
        (0.5, 2.0, False, 2 / 255, 0),
        (-3.0, 5.0, True, 5 / 127, 0),
        (-7.0, 5.0, True, 7 / 127, 0),
        (0.0, 0.0, False, 1.0, 0),
        (0.0, 0.0, True, 1.0, 0),
        (0.0, 1e-37, False, 1.0, 0),  # a step of 4e-40 is no normal float32
        (0.0, 1e-37, True, 1.0, 0),
        (0.0, 127 * 1.25e-38, True, 1.25e-38, 0),
        (0.0, 255 * 1.25e-38, False, 1.25e-38, 0),
    ],
)
def test_scale_and_zero_point_of_a_range(low: float, high: float, symmetric: bool, scale: float, zero: int) -> None:
    found, point = activation_scale(low, high, symmetric)
    assert found == pytest.approx(scale, rel=1e-12)
    assert (int(point), point.dtype) == (zero, np.int8 if symmetric else np.uint8)


def test_every_pair_of_the_cpus_scheme_has_the_step_of_its_range() -> None:
    """x: 8 / 255 and 2 / (8 / 255) = 63.75; r, f as they are; c: 16 / 255, 63.75; a Relu's convolution has no pair of its own."""
    assert pairs(quantized()) == {
        "x": (np.float32(8 / 255), 64, "uint8"),
        "r": (np.float32(8 / 255), 0, "uint8"),
        "c": (np.float32(16 / 255), 64, "uint8"),
        "m": (np.float32(3 / 255), 85, "uint8"),
        "f": (np.float32(3 / 255), 85, "uint8"),
    }


def test_every_pair_of_tensorrts_scheme_is_symmetric_on_what_a_layer_reads() -> None:
    assert pairs(quantized(scheme="tensorrt")) == {
        "x": (np.float32(6 / 127), 0, "int8"),
        "r": (np.float32(8 / 127), 0, "int8"),
        "f": (np.float32(2 / 127), 0, "int8"),
    }


def test_a_tensors_threshold_is_that_of_its_method_its_percentile_and_its_levels() -> None:
    own = {"mse": 5.0, "mse-255": 4.0, "entropy": 3.0, "percentile-99.9": 2.0, "percentile-99.99": 1.0}
    found = ranges(r=own, x=own)

    def step(levels: int, calibration: Calibration, scheme: Any = "cpu", **methods: Any) -> float:
        precision = Precision(int8=True, methods=methods)
        made = quantized(found=found_of(calibration), calibration=calibration, precision=precision, scheme=scheme)
        return round(pairs(made)["r"][0] * levels, 5)

    def found_of(calibration: Calibration) -> Ranges:
        """All other tensors have the method's threshold too."""
        every = dict.fromkeys(LIMITS, own)
        return found if calibration.method == "minmax" else ranges(**every)

    assert step(255, Calibration(method="mse")) == 4.0
    assert step(127, Calibration(method="mse"), "tensorrt") == 5.0
    assert step(255, Calibration(method="percentile", percentile=99.9)) == 2.0
    assert step(255, Calibration(method="percentile")) == 1.0
    assert step(255, Calibration(method="minmax"), r="entropy") == 3.0
    assert step(127, Calibration(method="minmax"), "tensorrt", r="mse") == 5.0
    assert step(255, Calibration(method="minmax"), x="entropy") == 8.0


def test_names_stay_and_new_ones_tell_what_they_are_of() -> None:
    made = quantized()
    names = [node.name for node in made.graph]
    for name in ("x", "r", "c", "m", "f"):
        assert {f"{name}.quantize", f"{name}.dequantize"} <= set(names)
    assert {"w1.dequantize", "w2.dequantize", "w3.dequantize", "node_y.add_bias"} <= set(names)
    for name in ("w1", "w2", "w3", "x", "r"):
        assert {f"{name}.scale", f"{name}.zero_point"} <= set(made.graph.initializers)
    for name in ("w1", "w2", "w3"):
        assert f"{name}.quantized" in made.graph.initializers and name not in made.graph.initializers
    values = {output.name for node in made.graph for output in node.outputs}
    assert {"x.quantized", "x.dequantized", "w1.dequantized", "a", "r", "c", "m", "f", "y", "y.without_bias"} <= values
    assert [value.name for value in made.graph.outputs] == ["y"]
    assert [value.name for value in made.graph.inputs] == ["x"]


def test_weights_are_those_of_a_scale_a_channel_and_biases_stay() -> None:
    made, arrays = quantized(), weights()
    for name, weight, axis in (("node_a", "w1", 0), ("node_c", "w2", 0), ("node_y", "w3", 0)):
        values, scale, zero, found = weight_behind(made, name)
        flat = np.abs(arrays[weight]).reshape(len(scale), -1).max(axis=1)
        np.testing.assert_allclose(scale, flat / 127, rtol=1e-6)
        shape = (-1, *[1] * (values.ndim - 1))
        np.testing.assert_array_equal(values, np.rint(arrays[weight] / scale.reshape(shape)))
        assert (values.dtype, scale.dtype, zero.dtype, found) == (np.int8, np.float32, np.int8, axis)
        assert zero.shape == scale.shape and not zero.any()
    np.testing.assert_array_equal(constant(made.graph.initializers["b1"]), arrays["b1"])


def test_a_scale_lies_along_the_axis_of_the_outputs() -> None:
    text = TEXT.replace("Gemm <transB = 1> (f, w3, b3)", "Gemm (f, w3, b3)")
    values, scale, _, axis = weight_behind(quantized(network(text, {"w3": weights()["w3"].T.copy()})), "node_y")
    expected, its_scale, *_ = weight_behind(quantized(), "node_y")
    np.testing.assert_array_equal(values, expected.T)
    np.testing.assert_array_equal(scale, its_scale)
    assert axis == 1


@pytest.mark.parametrize(
    ("gemm", "end", "split"),
    [
        ("y = Gemm <transB = 1> (f, w3, b3)", "", True),
        ("y = Gemm <transB = 1> (f, w3)", "", False),  # it has none
        ("y = Gemm <transB = 1, beta = 0.5> (f, w3, b3)", "", False),  # half a bias is another sum
        ("z = Gemm <transB = 1> (f, w3, b3)", "y = Relu (z)", False),  # the Relu has to stay next to it
        ("z = Gemm <transB = 1> (f, w3, b3)", "y = Sigmoid (z)", True),
    ],
)
def test_a_gemms_bias_is_added_behind_it(gemm: str, end: str, split: bool) -> None:
    text = TEXT.replace("y = Gemm <transB = 1> (f, w3, b3)", f"{gemm}\n{end}")
    made = quantized(network(text), ranges({**LIMITS, "z": (-5.0, 5.0)}))
    node = next(node for node in made.graph if node.op_type == "Gemm")
    adds = [one for one in made.graph if one.op_type == "Add"]
    assert len(adds) == split
    assert len([value for value in node.inputs if value is not None]) == (2 if split or "b3" not in gemm else 3)
    if split:
        (add,) = adds
        assert add.name == f"{node.name}.add_bias" and add.inputs[1] is made.graph.initializers["b3"]
        assert add.inputs[0] is node.outputs[0] and node.outputs[0].name == f"{add.outputs[0].name}.without_bias"
        assert add.outputs[0].shape is not None and add.outputs[0].dtype == ir.DataType.FLOAT
    assert not [
        one
        for one in quantized(network(text), ranges({**LIMITS, "z": (-5.0, 5.0)}), scheme="tensorrt").graph
        if one.op_type == "Add"
    ]


def test_a_large_bias_raises_the_weights_step() -> None:
    """ONNX Runtime holds a bias as int32 in steps of input scale times weight scale; beyond 2^30 of them it would overflow."""
    bias = np.array([1e9, 1.0, -1e9, 0.0], np.float32)
    _, scale, *_ = weight_behind(quantized(network(arrays={"b1": bias})), "node_a")
    step = np.float32(8 / 255)
    np.testing.assert_allclose(scale[[0, 2]], 1e9 / (step * 2.0**30), rtol=1e-6)
    np.testing.assert_allclose(scale[[1, 3]], np.abs(weights()["w1"]).reshape(4, -1).max(axis=1)[[1, 3]] / 127, rtol=1e-6)


def rounded(step: float) -> dict[str, Rounded]:
    values = np.full((4, 2, 3, 3), 7, np.int8)
    return {"node_a": Rounded(values, np.full(4, step, np.float32), np.array([1.0, 2.0, 3.0, 4.0]))}


@pytest.mark.parametrize(("correct", "shift"), [(True, 1.0), (False, 0.0), (None, 0.0)])
def test_weights_that_are_rounded_already_are_taken_and_shift_the_bias_where_wanted(correct: bool | None, shift: float) -> None:
    made = quantized(precision=Precision(int8=True, bias_correction=correct), rounded=rounded(0.25))
    values, scale, *_ = weight_behind(made, "node_a")
    assert (values == 7).all() and (scale == 0.25).all()
    bias = next(node for node in made.graph if node.name == "node_a").inputs[2]
    np.testing.assert_allclose(constant(bias), weights()["b1"] + shift * np.array([1, 2, 3, 4]), rtol=1e-6)
    assert (weight_behind(made, "node_c")[0] == weight_behind(quantized(), "node_c")[0]).all()


def test_rounded_weights_of_too_fine_a_step_are_rounded_again() -> None:
    model = network(arrays={"b1": np.array([1e9, 1, 1, 1], np.float32)})
    precision = Precision(int8=True, bias_correction=True)
    values, scale, *_ = weight_behind(quantized(model, precision=precision, rounded=rounded(0.25)), "node_a")
    assert scale[0] > 20 and not (values == 7).all()


def test_room_and_scale_of_weights_are_those_asked_for() -> None:
    half, _, *_ = weight_behind(quantized(room="half"), "node_a")
    assert np.abs(half).max() == 63
    fine = quantized(precision=Precision(int8=True, weights="mse"))
    array = weights()["w1"]
    expected, step = quantize_weight(array, 0, "mse")
    np.testing.assert_array_equal(weight_behind(fine, "node_a")[0], expected)
    np.testing.assert_array_equal(weight_behind(fine, "node_a")[1], step)


def test_layers_between_a_pair_and_the_next_are_the_quantized_ones() -> None:
    assert quantized_layers(network()) == ()
    assert set(quantized_layers(quantized())) == {"node_a", "node_r", "node_c", "node_m", "node_f", "node_y"}
    kept = quantized(precision=Precision(int8=True, keep=("node_a",)))
    assert "node_a" not in quantized_layers(kept) and "node_c" in quantized_layers(kept)


def test_only_unsigned_activations_before_wide_pairs_need_vnni() -> None:
    wide = {"w1": np.full((4, 2, 3, 3), 1.0, np.float32)}  # 127 + 127 in one pair
    narrow = {"w1": np.tile(np.array([1.0, 0.0], np.float32)[:, None, None], (4, 1, 3, 3))}
    kept = Precision(int8=True, keep=("node_c", "node_y"))
    assert needs_vnni(quantized(network(arrays=wide), precision=kept))
    assert not needs_vnni(quantized(network(arrays=narrow), precision=kept))
    assert not needs_vnni(quantized(network(arrays=wide), precision=kept, scheme="tensorrt"))
    assert not needs_vnni(network())


def test_a_target_has_its_scheme() -> None:
    kinds = {"cpu": "cpu", "openvino": "cpu", "cuda": "cpu", "tensorrt": "tensorrt", "rtx": "tensorrt", "ort-rtx": "tensorrt"}
    assert {kind: scheme_of(Target.parse(kind)) for kind in kinds} == kinds


def test_rows_are_in_the_order_in_which_kernels_add() -> None:
    """Taps outside, input channels inside, and a zero where their number is odd."""
    array = np.arange(1.0, 9.0).reshape(1, 2, 2, 2)  # channel 0: 1 2 3 4, channel 1: 5 6 7 8
    assert rows_of(array, 0).tolist() == [[1, 5, 2, 6, 3, 7, 4, 8]]
    assert rows_of(np.arange(3.0)[None], 0).tolist() == [[0, 1, 2, 0]]
    assert rows_of(np.arange(6.0).reshape(3, 2), 1).tolist() == [[0, 2, 4, 0], [1, 3, 5, 0]]


@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 2, 2, 3), 0), ((2, 3, 3, 2), 1), ((3, 5), 0), ((5, 3), 1), ((5, 3), -1), ((2, 3, 1), 0)]
)
def test_rows_go_back_to_where_they_were(shape: tuple[int, ...], axis: int) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.int8)
    back = unrows(rows_of(array, axis).astype(np.int8), array, axis)
    np.testing.assert_array_equal(back, array)
    assert back.flags.c_contiguous


def test_a_row_by_absmax() -> None:
    values, step = quantize_weight(np.array([[1.27, -0.5], [0, 0]]), 0)
    assert step.tolist() == [np.float32(0.01), 1.0]
    assert values.tolist() == [[127, -50], [0, 0]]
    assert quantize_weight(np.array([[-6.3, 0.1]]), 0, room="half")[0].tolist() == [[-63, 1]]
    assert (limit_of("full"), limit_of("half"), limit_of("pairs")) == (127, 63, 127)
    assert quantize_weight(np.array([[1.0, 0.0]]), 0, least=2.0)[1].tolist() == [2.0]
    assert quantize_weight(np.array([[1e-40, 0.0]]), 0)[1].tolist() == [1.0]


def test_two_weights_that_a_kernel_adds_share_128() -> None:
    values, step = quantize_weight(np.array([[1.0, 1.0], [1.0, -1.0]]), 0, room="pairs")
    assert step.tolist() == [2 / 128, np.float32(1 / 127)]
    assert values.tolist() == [[64, 64], [127, -127]]
    # a step of 1 makes 100 + 41 of it, 13 too many: 6 and 7 give way; below zero as above it, and nothing where there is room
    given = np.array([[100.0, 41.0], [-100.0, -41.0], [41.0, 100.0], [100.0, 28.0], [100.0, 29.0]])
    fitted = [[94, 34], [-94, -34], [35, 93], [100, 28], [100, 28]]
    assert _round(given, np.ones(5, np.float32), 127, True).tolist() == fitted
    assert _round(given, np.ones(5, np.float32), 127, False).tolist() == given.tolist()
    assert [fits_16_bits(np.array([row], np.int8), 0) for row in ([100, 28], [100, 29], [-100, -28], [-100, -29])] == [
        True, False, True, False,
    ]  # fmt: skip


def test_mse_takes_the_best_of_31_steps() -> None:
    row = np.append(np.random.default_rng(3).normal(size=20_001), 9.0)[None]
    best = min(((np.clip(np.rint(row / s), -127, 127) * s - row) ** 2).sum() for s in 9.0 / 127 * np.linspace(1.0, 0.4, 31))
    values, step = quantize_weight(row, 0, "mse")
    assert ((values * step.astype(np.float64) - row) ** 2).sum() == pytest.approx(best, rel=1e-4)
    assert step[0] < np.float32(9.0 / 127)


def test_a_pattern_without_a_layer_and_one_with_every_layer_are_refused() -> None:
    with pytest.raises(GraphError, match=r"`precision\.keep` names 'conv9'"):
        quantized(precision=Precision(int8=True, keep=("conv9",)))
    for kind in ("int8", "fp8"):
        precision = Precision(int8=kind == "int8", fp8=kind == "fp8", keep=("*",))
        remedy = rf"^nothing is left to quantize\. Shorten `precision\.keep` or set `{kind} = false`$"
        with pytest.raises(CalibrationError, match=remedy):
            quantized(precision=precision)


def test_float8_spans_the_largest_magnitude_and_leaves_the_images_layer_out() -> None:
    own = {"mse": 1.0, "mse-255": 1.0}  # whatever the method, nothing is cut
    made = quantized(
        precision=Precision(fp8=True), scheme="tensorrt", found=ranges(r=own, f=own), calibration=Calibration(method="mse")
    )
    assert pairs(made) == {"r": (np.float32(8 / 448), 0, "float8_e4m3fn"), "f": (np.float32(2 / 448), 0, "float8_e4m3fn")}
    values, scale, zero, axis = weight_behind(made, "node_c")
    assert (scale.shape, zero.shape, axis) == ((), (), None)
    assert scale == np.float32(np.abs(weights()["w2"]).max() / 448)
    assert np.abs(values.astype(np.float32)).max() == 448 and zero.dtype == values.dtype
    first = next(node for node in made.graph if node.name == "node_a")
    assert first.inputs[1] is made.graph.initializers["w1"] and first.inputs[0] is made.graph.inputs[0]
    assert "node_y.add_bias" not in [node.name for node in made.graph]
    kept = quantized(precision=Precision(fp8=True, keep=("node_c",)), scheme="tensorrt")
    assert list(pairs(kept)) == ["f"]
    assert next(node for node in kept.graph if node.name == "node_c").inputs[1] is kept.graph.initializers["w2"]


def test_the_pair_before_an_activation_spans_what_it_tells_apart() -> None:
    """Below -3 HardSwish is 0, found to within a hundredth of the range; a threshold that cuts more than that is kept."""
    model = network(TEXT.replace("Relu (a)", "HardSwish (a)"))
    scale, zero, _ = pairs(quantized(model, ranges({**LIMITS, "a": (-9.0, 8.0)})))["a"]
    assert scale == pytest.approx(11 / 255, rel=0.01)
    assert zero == round(3 / 11 * 255) - 1
    cut = ranges(a={"mse": 9.0, "mse-255": 2.0})
    assert pairs(quantized(model, cut, precision=Precision(int8=True, methods={"a": "mse"})))["a"] == (
        np.float32(4 / 255), 128, "uint8"
    )  # fmt: skip


POOL = "AveragePool <kernel_shape = [2, 2], pads = [1, 1, 1, 1], ceil_mode = {0}, count_include_pad = {1}> (c)"


@pytest.mark.parametrize(("ceil", "count"), [(1, 1), (1, 0), (0, 1)])
def test_a_pool_that_would_be_averaged_wrongly_is_kept_from_fusing(ceil: int, count: int) -> None:
    text = TEXT.replace("m = GlobalAveragePool (c)", f"p = {POOL.format(ceil, count)}\n m = GlobalAveragePool (p)")
    found = ranges({**LIMITS, "p": (-4.0, 12.0)})
    made = quantized(network(text), found)
    between = [node for node in made.graph if node.op_type == "Max"]
    assert len(between) == (ceil and count)
    assert not [node for node in quantized(network(text), found, scheme="tensorrt").graph if node.op_type == "Max"]
    if between:
        (same,) = between
        pool = same.inputs[0].producer()  # type: ignore[union-attr]
        assert pool is not None and (pool.name, same.name) == ("node_p", "node_p.unfused")
        assert (pool.outputs[0].name, same.outputs[0].name) == ("p.pooled", "p")
        assert same.inputs[1] is same.inputs[0]
        assert same.outputs[0].dtype == ir.DataType.FLOAT and same.outputs[0].shape is not None
        assert not [node for node in pool.outputs[0].consumers() if node is not same]


def test_mse_keeps_pairs_within_128_while_it_cuts() -> None:
    """Two neighbors of 9 ask for a step of 18 / 128; the other weights for less, and then the two give way together."""
    row = np.append(np.random.default_rng(3).normal(size=20_000), [9.0, 9.0])[None]
    values, step = quantize_weight(row, 0, "mse", "pairs")
    assert fits_16_bits(values, 0) and step[0] < 18 / 128
    steps = (18 / 128 * np.linspace(1.0, 0.4, 31)).astype(np.float32)
    errors = [((_round(row, steps[i : i + 1], 127, True) * float(steps[i]) - row) ** 2).sum() for i in range(31)]
    assert step[0] == steps[int(np.argmin(errors))]
