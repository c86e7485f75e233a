"""Activation functions in a graph of some nodes: what each computes, what it cuts, and where a unit ends."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.networks import run
from tests.graph.test_qdq_values import network
from tests.graph.test_small_values import ARRAYS, HEAD, value
from toolkit.graph.activations import Activation, unit_of, units
from toolkit.types import Array

SCALES = np.array([1.0, 2.0, 0.5, 4.0], np.float32)
MORE = {
    "zero": np.float32(0),
    "six": np.float32(6),
    "one": np.float32(1),
    "by": SCALES.reshape(1, 4, 1, 1),
    "half": np.float32(0.5),
}


def graph(body: str, **more: Array) -> ir.Model:
    """In opset 20, the first with Gelu."""
    return network(f"{HEAD.replace('18', '20')}{{\n{body}\n}}", {**ARRAYS, **MORE, **more})


def unit(body: str) -> Activation:
    model = graph(body)
    (found,) = units(model).values()
    assert found.source is model.graph.inputs[0] and found.output.name == "y"
    return found


FUNCTIONS = [
    "y = Relu (x)", "y = Clip (x, zero, six)", "y = Clip (x, zero)", "y = Clip (x, , six)", "y = Clip (x)",
    "y = LeakyRelu (x)", "y = LeakyRelu <alpha = 0.2> (x)", "y = Elu (x)", "y = Elu <alpha = 0.5> (x)", "y = Sigmoid (x)",
    "y = HardSigmoid (x)", "y = HardSigmoid <alpha = 0.4, beta = 0.3> (x)", "y = HardSwish (x)", "y = Tanh (x)", "y = Erf (x)",
    "y = Softplus (x)", "y = Mish (x)", "y = Gelu (x)", "y = Add (x, one)", "y = Sub (x, one)", "y = Sub (one, x)",
    "y = Mul (six, x)",
    "y = Div (x, six)", "s = Sigmoid (x) \n y = Mul (x, s)", 
    "s = Add (x, one) \n t = Clip (s, zero, six) \n u = Mul (x, t) \n y = Div (u, six)",
]  # fmt: skip


@pytest.mark.parametrize("body", FUNCTIONS)
def test_a_function_computes_what_the_graph_does(body: str) -> None:
    x = np.linspace(-7, 7, 64, dtype=np.float32)
    found = unit(body)
    model = graph(body)
    np.testing.assert_allclose(found(x.astype(np.float64)), run(model, x.reshape(4, 4, 2, 2)).ravel(), rtol=1e-5, atol=1e-6)
    assert found.saturates == (body.split()[2] in ("Relu", "Clip"))
    assert not found.by_channel and len(found.nodes) == body.count("=") - body.count("alpha") - body.count("beta")


def test_a_product_by_one_number_a_channel() -> None:
    found = unit("p = Mul (x, by) \n y = Clip (p, zero, six)")
    x = np.array([[-1.0], [1.0], [5.0]])
    assert found.by_channel and not found.saturates
    assert found(x).tolist() == [[0, 0, 0, 0], [1, 2, 0.5, 4], [5, 6, 2.5, 6]]
    low, high = found.active(-10.0, 20.0)  # half a step of 6: 0.0118; the steepest channel leaves 0 first, the flattest 6 last
    assert 0.00294 - 30 / 511 < low <= 0.00295
    assert 11.976 <= high < 11.977 + 30 / 511
    assert found.active(1.0, 1.0) == (1.0, 1.0) and found.active(2.0, -3.0) == (2.0, -3.0)
    assert found.active(-5.0, -1.0) == (-5.0, -1.0)  # flat all over
    inverse = unit("p = Mul (x, by) \n y = Div (one, p)")
    assert inverse.active(-256.0, 255.0) == (-256.0, 255.0)  # infinite at 0


@pytest.mark.parametrize(
    ("body", "low", "high"),
    [
        ("y = Relu (x)", 20 / 510, 20 - 20 / 510),
        ("y = Clip (x, zero, six)", 6 / 510, 6 - 6 / 510),
        ("y = Clip (x, , six)", -30 + 36 / 510, 6 - 36 / 510),
        ("y = HardSigmoid (x)", -2.5 + 5 / 510, 2.5 - 5 / 510),
    ],
)
def test_what_moves_by_less_than_half_a_step_is_cut(body: str, low: float, high: float) -> None:
    """255 steps span what the function gives; 4097 points lie between -30 and 20."""
    least, most = unit(body).active(-30.0, 20.0)
    assert low - 50 / 4096 < least <= low + 1e-9 and high - 1e-9 <= most < high + 50 / 4096
    assert unit(body).active(3.0, 3.0) == (3.0, 3.0)


def test_what_falls_and_rises_is_kept_from_where_it_first_moves() -> None:
    """HardSwish is 0 up to -3, and -0.375 at -1.5 on its way back to 0."""
    least, most = unit("y = HardSwish (x)").active(-8.0, 4.0)
    half = 4.375 / 510
    wanted = -3 + (3 - np.sqrt(9 - 24 * half)) / 2  # x (x + 3) / 6 = -half
    assert wanted - 12 / 4096 < least <= wanted
    assert 4 - half - 1e-9 <= most < 4 - half + 12 / 4096


def test_where_nothing_can_be_told_all_is_kept() -> None:
    assert unit("y = Mul (x, zero)").active(-3.0, 4.0) == (-3.0, 4.0)
    assert unit("y = Div (one, x)").active(-4.0, 4.0) == (-4.0, 4.0)  # infinite at 0
    assert unit("y = Relu (x)").active(5.0, 2.0) == (5.0, 2.0)


def sources(body: str, **more: Array) -> dict[str, str]:
    """By each unit's source the outputs of its nodes, in one word."""
    found = units(graph(body, **more)).items()
    return {str(source.name): " ".join(str(node.outputs[0].name) for node in one.nodes) for source, one in found}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("a = Conv (x, w) \n s = Sigmoid (a) \n m = Mul (a, s) \n y = Conv (m, w)", {"a": "s m"}),
        ("a = Conv (x, w) \n s = Sigmoid (a) \n m = Mul (a, s) \n n = Conv (s, w) \n y = Add (m, n)", {}),
        ("a = Conv (x, w) \n r = Relu (a) \n b = Conv (a, w) \n y = Add (r, b)", {}),
        ("a = Conv (x, w) \n r = Relu (a) \n t = Tanh (r) \n b = Conv (r, w) \n y = Add (t, b)", {"a": "r"}),
        ("a = Conv (x, w) \n r = own.Relu (a) \n y = Conv (r, w)", {}),
        ("a = Conv (x, w) \n r = Relu (a) \n s = Softmax (r) \n t = Tanh (s) \n y = Conv (t, w)", {"a": "r", "s": "t"}),
        ("a = Conv (x, w) \n r = Relu (a) \n p = Mul (r, by) \n y = Conv (p, w)", {"a": "r p"}),
        ("a = Conv (x, w) \n p = Mul (a, k3) \n y = Conv (p, w)", {}),
        ("a = Conv (x, w) \n p = Mul (a, wide) \n y = Conv (p, w)", {}),
        ("a = Conv (x, w) \n p = Add (a, by) \n y = Conv (p, w)", {}),
        ("a = Conv (x, w) \n b = Conv (x, w5) \n p = Mul (a, b) \n y = Conv (p, w)", {}),
        ("r = Relu (x) \n y = Relu (r)", {"x": "r y"}),
        ("a = Relu (x) \n b = Tanh (a) \n c = Tanh (b) \n d = Tanh (c) \n e = Tanh (d) \n f = Tanh (e) \n g = Tanh (f) \n"
         "h = Tanh (g) \n y = Conv (h, w)", {"x": "a b c d e f g h"}),
        ("a = Relu (x) \n b = Tanh (a) \n c = Tanh (b) \n d = Tanh (c) \n e = Tanh (d) \n f = Tanh (e) \n g = Tanh (f) \n"
         "h = Tanh (g) \n y = Tanh (h)", {"x": "a b c d e f g h"}),
    ],
)  # fmt: skip
def test_units_are_what_one_value_goes_through_alone(body: str, found: dict[str, str]) -> None:
    shapes = {"k3": np.ones((4, 1, 1), np.float32), "wide": np.ones((1, 4, 1, 2), np.float32)}
    assert sources(body, **shapes) == found


def test_what_the_graph_hands_out_ends_a_unit() -> None:
    model = graph("r = Relu (x) \n t = Tanh (r) \n y = Conv (t, w)")
    model.graph.outputs.append(value(model, "r"))
    found = unit_of(model.graph.inputs[0])
    assert found is not None and [node.op_type for node in found.nodes] == ["Relu"]
    assert unit_of(value(model, "r")) is None and unit_of(value(model, "y")) is None
    dropped = graph("r = Relu (x) \n y = Conv (r, w)")
    relu = dropped.graph[0]
    several = ir.node("Relu", [relu.inputs[0]], num_outputs=2)
    dropped.graph.insert_before(relu, several)
    dropped.graph[1].replace_input_with(0, several.outputs[0])
    assert unit_of(dropped.graph.inputs[0]) is None
