"""Products around activation functions of a graph of some nodes: where they stand, what they are, and where there are none."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.networks import run
from tests.graph.test_small_values import BATCH, graph, value
from toolkit.graph.activations import unit_of
from toolkit.graph.channels import Channels, measure
from toolkit.graph.edit import constant
from toolkit.graph.equalize import PEAK, ChannelSet, factors
from toolkit.graph.prescale import _before, equalized, has_functions, prescale
from toolkit.types import Array

BODY = "a = Conv (x, w, bias) \n h = HardSwish (a) \n c = Conv (h, w5) \n y = Relu (c)"
SPREAD = np.array([0.01, 8.0, 1.0, 0.2], np.float32)
FIRST = np.random.default_rng(2).normal(size=(4, 4, 1, 1)).astype(np.float32) * 3
MORE = {"w": FIRST * SPREAD.reshape(4, 1, 1, 1), "by_one": np.full((1, 1, 1, 1), 2, np.float32)}
MORE["steep"] = np.array([1, 5, 0.2, 3], np.float32).reshape(1, 4, 1, 1)


def array(model: ir.Model, output: str, index: int) -> Array:
    found = constant(next(node for node in model.graph if node.outputs[0].name == output).inputs[index])
    assert found is not None
    return found


def test_the_layer_before_takes_on_what_is_given_back_and_the_reader_gives_back_the_rest() -> None:
    """t at the convolution, 1 / t before the function, s behind it, 1 / s at the reader."""
    plain = graph(BODY, **MORE)
    made = prescale(plain, [BATCH])
    assert [(node.op_type, node.outputs[0].name) for node in made.graph] == [
        ("Conv", "a"), ("Mul", "a.unscaled"), ("HardSwish", "h"), ("Mul", "h.prescaled"), ("Conv", "c"), ("Relu", "y"),
    ]  # fmt: skip
    seen = measure(plain, [BATCH], ["a", "h"])
    reader = next(node for node in plain.graph if node.outputs[0].name == "c")
    s = factors(ChannelSet(4, ("h",), (), (reader,), stream=False), seen)
    # before the function: what it gives, or what it still moves in, down to about -3 where it goes flat
    reach = np.maximum(seen["h"].peak, np.minimum(seen["a"].peak, 3.0))
    t = np.minimum(s, PEAK / reach)
    assert (t < s).any() and (t == s).any()
    np.testing.assert_allclose(array(made, "h.prescaled", 1).ravel(), s, rtol=1e-5)
    np.testing.assert_allclose(1 / array(made, "a.unscaled", 1).ravel(), t, rtol=0.02)
    used = 1 / array(made, "a.unscaled", 1)
    assert used.shape == array(made, "h.prescaled", 1).shape == (1, 4, 1, 1) and used.dtype == np.float32
    np.testing.assert_allclose(array(made, "a", 1), MORE["w"] * used.reshape(4, 1, 1, 1), rtol=1e-5)
    np.testing.assert_allclose(array(made, "a", 2), array(plain, "a", 2) * used.ravel(), rtol=1e-5)
    np.testing.assert_allclose(array(made, "c", 1), array(plain, "c", 1) / s.reshape(1, 4, 1, 1), rtol=1e-5)
    np.testing.assert_allclose(run(made, BATCH), run(plain, BATCH), rtol=1e-4, atol=1e-4)
    assert [node.op_type for node in plain.graph] == ["Conv", "HardSwish", "Conv", "Relu"]
    for name, original in (("a.unscaled", "a"), ("h.prescaled", "h")):
        assert value(made, name).shape == value(plain, original).shape and value(made, name).dtype == ir.DataType.FLOAT


def test_a_function_of_two_nodes_stands_between_its_products() -> None:
    body = "a = Conv (x, w) \n s = Sigmoid (a) \n m = Mul (a, s) \n c = Conv (m, w5) \n d = Conv (m, w5) \n y = Add (c, d)"
    plain = graph(body, **MORE)
    made = prescale(plain, [BATCH])
    assert [node.outputs[0].name for node in made.graph] == ["a", "a.unscaled", "s", "m", "m.prescaled", "c", "d", "y"]
    readers = {name: [value.name for value in node.inputs][:2] for node in made.graph for name in [str(node.outputs[0].name)]}
    assert readers["s"] == ["a.unscaled"] and readers["m"] == ["a.unscaled", "s"]
    assert readers["c"][0] == readers["d"][0] == "m.prescaled"
    np.testing.assert_allclose(run(made, BATCH), run(plain, BATCH), rtol=1e-4, atol=1e-4)


def test_scales_before_a_function_by_hand() -> None:
    """HardSwish between -10 and 10: flat below -3, so the ranges are 10, 2, 1 and 5; and one channel of nothing."""
    model = graph(BODY)
    unit = unit_of(value(model, "a"))
    assert unit is not None
    before, after = np.array([10.0, 2, 1, 5, 0]), np.array([10.0, 1.6, 0.6, 5, 0])
    seen = {name: Channels(peak, peak, peak) for name, peak in (("a", before), ("h", after))}
    large, small = np.full(5, 1e9), np.array([1e-3, 2e-3, 3e-3, 4e-3, 5e-3])
    np.testing.assert_allclose(_before(unit, large, seen)[:4], PEAK / np.array([10, 2, 1, 5]), rtol=1e-6)
    assert _before(unit, large, seen)[4] == 1e9
    np.testing.assert_array_equal(_before(unit, small, seen), small)
    far = {"a": Channels(*[np.array([10.0, 4, 4, 4, 4])] * 3), "h": Channels(*[np.array([10.0, 0.3, 3.9, 0.1, 0.2])] * 3)}
    np.testing.assert_allclose(_before(unit, large, far), PEAK / np.array([10, 3, 3.9, 3, 3]), rtol=0.02)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (BODY, True),
        (BODY.replace("HardSwish", "Softplus"), True),
        (BODY.replace("HardSwish", "LeakyRelu"), True),
        (BODY.replace("HardSwish", "Relu"), False),
        (BODY.replace("HardSwish", "Sigmoid"), False),  # flat far out
        (BODY.replace("HardSwish (a)", "Mul (a, by_one)"), False),  # twice as steep far out
        ("h = HardSwish (x) \n y = Conv (h, w5)", False),
        ("a = Identity (x) \n h = HardSwish (a) \n y = Conv (h, w5)", False),
        ("a = Conv (x, w, bias) \n y = HardSwish (a)", False),
        ("a = Conv (x, w, bias) \n h = HardSwish (a) \n c = Conv (h, w5) \n y = Add (c, h)", False),
        ("a = Conv (x, w, bias) \n h = HardSwish (a) \n p = MaxPool <kernel_shape = [1, 1]> (h) \n y = Conv (p, w5)", True),
        ("a = Conv (x, w, bias) \n h = HardSwish (a) \n p = AveragePool <kernel_shape = [1, 1]> (h) \n y = Conv (p, w5)", True),
        ("a = Conv (x, w, bias) \n h = HardSwish (a) \n p = GlobalAveragePool (h) \n y = Conv (p, w5)", True),
        ("a = Conv (x, w, bias) \n h = HardSwish (a) \n p = GlobalAveragePool (h) \n c = Conv (p, w5) \n s = Sigmoid (c) \n"
         "g = Mul (h, s) \n y = Conv (g, w5)", True),
        ("a = Conv (x, w, bias) \n h = HardSwish (a) \n g = Mul (x, h) \n y = Conv (g, w5)", False),
        # the product is part of the function, which is then steeper in some channels, be it not in the first
        ("a = Conv (x, w, bias) \n h = HardSwish (a) \n g = Mul (h, steep) \n y = Conv (g, w5)", False),
        ("a = Conv (x, w, bias) \n h = HardSwish (a) \n f = Reshape (h, flat) \n z = MatMul (f, matrix) \n y = Relu (z)", False),
    ],
)  # fmt: skip
def test_where_products_can_stand(body: str, found: bool) -> None:
    assert has_functions(graph(body, **MORE)) is found
    plain = graph(body, **MORE)
    made = prescale(plain, [BATCH])
    assert any(node.op_type == "Mul" and (node.name or "").endswith(".prescaled") for node in made.graph) is found
    np.testing.assert_allclose(run(made, BATCH), run(plain, BATCH), rtol=1e-3, atol=1e-3)


def test_a_bias_that_is_computed_or_a_shape_that_is_not_known_leaves_the_function() -> None:
    model = graph("m = ReduceMean <keepdims = 0> (x, axes) \n a = Conv (x, w, m) \n h = HardSwish (a) \n y = Conv (h, w5)",
                  axes=np.array([0, 2, 3]))  # fmt: skip
    assert not has_functions(model)
    for shape in (None, ir.Shape(["N", "C", 2, 2]), ir.Shape(["N", 4, 2])):
        open_ = graph(BODY, **MORE)
        assert has_functions(open_)
        value(open_, "h").shape = shape
        assert not has_functions(open_)


def test_modes_with_and_without_products() -> None:
    plain = graph(BODY, **MORE)
    operators = {
        mode: [node.op_type for node in equalized(plain, mode, [BATCH]).graph] for mode in ("none", "streams", "activations")
    }
    assert operators["none"] == operators["streams"] == ["Conv", "HardSwish", "Conv", "Relu"]
    assert operators["activations"] == ["Conv", "Mul", "HardSwish", "Mul", "Conv", "Relu"]
    assert equalized(plain, "none", iter(())) is not plain
    untouched = prescale(graph("y = Conv (x, w)"), iter(()))
    assert [node.op_type for node in untouched.graph] == ["Conv"]
