"""Variances, cuts before a Softmax, origins, outlines and measuring products of graphs of some nodes, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.graph.test_qdq_values import network
from toolkit.graph.edges import moves, origin
from toolkit.graph.outline import layer_of, outline
from toolkit.graph.product import CHANNELS, EDGE, LAYERS, chain, products
from toolkit.graph.run import graph_runner
from toolkit.graph.softmax import before_softmax, centered, ends_in_softmax
from toolkit.graph.variance import Branch, Vanishing, island_lines, vanishing, variances
from toolkit.harness.layers import NetworkLayer
from toolkit.types import Array

HEAD = '<ir_version: 9, opset_import: ["" : 18, "own" : 1]>\nnet (float[N, 4, 2, 2] x) => (float[N, 4, 2, 2] y)\n'
RNG = np.random.default_rng(5)
SHAPES: dict[str, tuple[int, ...]] = {"w": (4, 4, 1, 1), "w5": (4, 4, 1, 1), "k": (1, 4, 1, 1), "bias": (4,), "matrix": (16, 4)}
ARRAYS: dict[str, Array] = {
    **{name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()},
    "last": np.array([-1]), "flat": np.array([-1, 16]), "square": np.array([-1, 4, 2, 2]),
    "eps": np.float32(1e-3), "two": np.float32(2), "three": np.array([3], np.float32), "more": np.float32(1.5),
    "each": np.full(2, 2, np.float32),
}  # fmt: skip


def graph(body: str, **more: Any) -> ir.Model:
    return network(f"{HEAD}{{\n{body}\n}}", {**ARRAYS, **{name: np.asarray(array) for name, array in more.items()}})


def value(model: ir.Model, name: str) -> ir.Value:
    return next(output for node in model.graph for output in node.outputs if output.name == name)


def branches(body: str) -> list[str]:
    """The outputs of each branch's nodes, in one word."""
    return [" ".join(name.removeprefix("node_") for name in branch.nodes) for branch in variances(graph(body))]


NORM = "q = Mul (x, x) \n v = ReduceMean (q, last) \n r = Sqrt (v) \n y = Div (x, r)"
JOINT = "t = Add (v, u) \n r = Sqrt (t) \n y = Div (x, r)"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (NORM, ["q v r y"]),
        ("m = ReduceMean (x, last) \n d = Sub (x, m) \n q = Mul (d, d) \n v = ReduceMean (q, last) \n e = Add (v, eps) \n"
         "r = Sqrt (e) \n n = Div (d, r) \n y = Mul (n, k)", ["m d q v e r n"]),  # and nothing behind the quotient
        ("m = GlobalAveragePool (x) \n b = Identity (m) \n d = Sub (x, b) \n q = Pow (d, two) \n v = GlobalAveragePool (q) \n"
         "i = Reciprocal (v) \n y = Mul (d, i)", ["m b d q v i y"]),
        ("d = Sub (x, k) \n q = Mul (d, d) \n v = ReduceSum (q, last) \n y = Div (d, v)", ["d q v y"]),
        ("d = own.Sub (x, k) \n q = Mul (d, d) \n v = ReduceSum (q, last) \n y = Div (x, v)", ["q v y"]),
        (NORM.replace("Mul (x, x)", "Pow (x, two)"), ["q v r y"]),
        (NORM.replace("Mul (x, x)", "Pow (x, three)"), ["q v r y"]),
        (NORM.replace("Mul (x, x)", "Pow (x, more)"), []),
        (NORM.replace("Mul (x, x)", "Pow (x, each)"), []),
        (NORM.replace("Mul (x, x)", "Pow (x, x)"), []),
        (NORM.replace("Mul (x, x)", "own.Mul (x, x)"), []),
        (NORM.replace("Mul (x, x)", "Mul (x, k)"), []),
        (NORM.replace("ReduceMean", "own.ReduceMean"), []),
        (NORM.replace("Div", "own.Div"), ["q v r"]),
        (NORM.replace("r = Sqrt", "r = Tanh"), ["q v"]),
        (NORM.replace("ReduceMean (q,", "ReduceMean (s,").replace("v =", "s = Mul (q, eps) \n v ="), ["q s v r y"]),
        (NORM.replace("ReduceMean (q,", "ReduceMean (s,").replace("v =", "s = Div (q, two) \n v ="), ["q s v r y"]),
        (NORM.replace("ReduceMean (q,", "ReduceMean (s,").replace("v =", "s = Mul (q, x) \n v ="), []),
        (NORM.replace("ReduceMean (q,", "ReduceMean (s,").replace("v =", "s = Add (q, eps) \n v ="), []),
        (NORM.replace("ReduceMean (q,", "ReduceMean (s,").replace("v =", "s = Identity (q) \n v ="), ["q s v r y"]),
        ("v = ReduceSumSquare (x, last) \n y = Div (x, v)", ["v y"]),
        ("v = ReduceL2 (x, last) \n c = Max (v, eps) \n y = Div (x, c)", ["v c y"]),
        ("y = LpNormalization (x)", ["y"]),
        ("q = Mul (x, x) \n y = Relu (q)", []),
        # E[x^2] - E[x]^2, the mean through a shape, a square by Pow or Mul, and not through another function
        ("a = ReduceMean (x, last) \n q = Mul (x, x) \n v = ReduceMean (q, last) \n p = Mul (a, a) \n i = Identity (p) \n"
         "d = Sub (v, i) \n r = Sqrt (d) \n y = Div (x, r)", ["a q v p i d r y"]),
        ("a = ReduceMean (x, last) \n q = Mul (x, x) \n v = ReduceMean (q, last) \n p = Relu (a) \n"
         "d = Sub (v, p) \n r = Sqrt (d) \n y = Div (x, r)", ["q v d"]),
        ("a = ReduceMean (x, last) \n q = Mul (x, x) \n v = ReduceMean (q, last) \n p = Mul (a, x) \n"
         "d = Sub (v, p) \n r = Sqrt (d) \n y = Div (x, r)", ["q v d"]),
        ("a = ReduceMean (x, last) \n q = Mul (x, x) \n v = ReduceMean (q, last) \n p = own.Sqrt (a) \n"
         "d = Sub (v, p) \n r = Sqrt (d) \n y = Div (x, r)", ["q v d"]),
        ("q = Mul (x, x) \n v = ReduceMean (q, last) \n d = Sub (v, x) \n r = Sqrt (d) \n y = Div (x, r)", ["q v d"]),
        # two squares whose reductions meet are one branch, another stands for itself; by their first nodes
        ("q = Mul (x, x) \n p = Mul (x, x) \n v = ReduceMean (q, last) \n u = ReduceMean (p, last)\n" + JOINT, ["q p v u t r y"]),
        ("q = Mul (x, x) \n a = ReduceL2 (x, last) \n b = Div (x, a) \n f = Relu (b) \n p = Mul (f, f) \n"
         "v = ReduceMean (q, last) \n u = ReduceMean (p, last) \n" + JOINT, ["q p v u t r y", "a b"]),
    ],
)  # fmt: skip
def test_the_nodes_of_each_variance(body: str, kept: list[str]) -> None:
    assert branches(body) == kept


def test_constants_that_float16_rounds_to_nothing() -> None:
    body = "a = Add (x, tiny) \n b = Mul (a, a) \n c = Max (b, nothing, least) \n d = Sub (c, pair)\n"
    body += "e = Add (d, half) \n y = Relu (e)"
    least = 2.0**-25  # half of float16's least: a tie, and to even
    found = vanishing(graph(body, tiny=np.full((1, 1), -1e-9, np.float32), nothing=np.float32(0), least=np.float32(least),
                            pair=np.full(2, 1e-9, np.float32), half=np.float32(3.1e-8)))  # fmt: skip
    assert [(one.nodes, one.value) for one in found] == [
        (("node_a", "node_b"), pytest.approx(-1e-9)),
        (("node_c", "node_d"), least),
    ]
    several = vanishing(graph("y = Max (x, first, second)", first=np.float32(1e-10), second=np.float32(1e-9)))
    assert [(one.nodes, one.value) for one in several] == [(("node_y",), pytest.approx(1e-10))]
    assert vanishing(graph("y = Add (x, wide)", wide=np.float64(1e-9))) == ()
    assert str(found[0]) == "FP32 kept for node_a, node_b: the constant -1e-09 of node_a is 0 in float16"


def test_lines_by_reason_and_more_than_three_in_one() -> None:
    lost = [Vanishing(nodes=(f"n{i}", "y"), value=1e-9) for i in range(4)]
    branch, lone = Branch(nodes=("a", "b", "c")), Branch(nodes=("p",))
    assert str(branch).endswith("cannot hold: a to c (3 nodes)") and str(lone).endswith("cannot hold: p (1 nodes)")
    assert island_lines([lost[0], branch, *lost[1:], lone]) == (
        f"{lost[0]}; for the same reason at 3 more places, 5 nodes in all", str(branch), str(lone),
    )  # fmt: skip
    assert island_lines(lost[:3]) == tuple(map(str, lost[:3]))
    assert island_lines([]) == ()


BATCH = RNG.normal(size=(3, 4, 2, 2)).astype(np.float32)
LOGITS = "f = Reshape (x, flat) \n z = MatMul (f, matrix) \n"


def softmax(z: Array) -> Array:
    exps = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(exps / exps.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("end", "soft"),
    [
        ("y = Softmax (z)", True),
        ("y = LogSoftmax (z)", True),
        ("s = Softmax (z) \n y = Cast <to = 1> (s)", True),
        ("y = Sigmoid (z)", False),
        ("y = Cast <to = 1> (z)", False),
        ("s = Softmax (z) \n y = Relu (s)", False),
        ("y = own.Softmax (z)", False),
    ],
)
def test_a_softmax_at_the_end_is_cut(end: str, soft: bool) -> None:
    model = graph(LOGITS + end)
    assert ends_in_softmax(model) is soft
    cut = before_softmax(model)
    assert (cut is model) is not soft
    if soft:
        assert ends_in_softmax(model) and not ends_in_softmax(cut)
        np.testing.assert_allclose(graph_runner(cut, 1)(BATCH), BATCH.reshape(3, 16) @ ARRAYS["matrix"], rtol=1e-5, atol=1e-5)
        assert [node.op_type for node in cut.graph][2:] == ["Cast"] * ("Cast" in end)


def test_what_is_handed_through_ends_in_no_softmax() -> None:
    handed = graph("y = Cast <to = 1> (x)")
    assert not ends_in_softmax(handed) and before_softmax(handed) is handed
    handed.graph.outputs[0] = handed.graph.inputs[0]
    assert not ends_in_softmax(handed)


def test_rows_are_centered_where_a_softmax_comes_behind() -> None:
    rows = np.array([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]], np.float32)
    assert centered(rows, True).tolist() == [[-2, -1, 3], [0, 0, 0]]
    assert centered(rows.reshape(2, 3, 1, 1), False).tolist() == rows.tolist()
    assert centered(rows, False).dtype == np.float64
    np.testing.assert_allclose(softmax(centered(rows, True)), softmax(rows.astype(np.float64)), rtol=1e-12)


def test_the_tensor_that_values_come_from() -> None:
    model = graph(
        "r = Relu (x) \n f = Reshape (r, flat) \n s = Reshape (f, square) \n t = Transpose (s)"
        "y = MaxPool <kernel_shape = [1, 1]> (t)"
    )
    assert {origin(value(model, name)) for name in "yfr"} == {value(model, "r")}
    moved = graph("f = Reshape (x, flat) \n o = own.Reshape (f, flat) \n y = Reshape (o, square)")
    assert origin(value(moved, "f")) is moved.graph.inputs[0]
    assert origin(value(moved, "y")) is value(moved, "o")
    assert [moves(node) for node in moved.graph] == [True, False, True]


def layers(model: ir.Model) -> list[tuple[str, str, str, tuple[str, ...]]]:
    return [(layer.name, layer.kind, layer.precision, tuple(layer.reads)) for layer in outline(model)[0]]


def test_layers_with_what_they_read_and_their_activations() -> None:
    """The Relu that alone reads a layer is of it; one that shares the reading, or reads the input, is a layer of its own."""
    model = graph(
        "a = Conv (x, w, bias) \n b = Relu (a) \n c = Identity (b) \n d = Conv (c, w5) \n e = Relu (d) \n g = Add (d, e) \n"
        "h = Add (g, b) \n i = Relu (x) \n j = Mul (i, i) \n y = Add (h, j)"
    )
    assert layers(model) == [
        ("node_a", "Conv", "fp32", ()), ("node_d", "Conv", "fp32", ("node_a",)), ("node_e", "Relu", "fp32", ("node_d",)),
        ("node_g", "Add", "fp32", ("node_d", "node_e")), ("node_h", "Add", "fp32", ("node_g", "node_a")),
        ("node_i", "Relu", "fp32", ()), ("node_j", "Mul", "fp32", ("node_i",)), ("node_y", "Add", "fp32", ("node_h", "node_j")),
    ]  # fmt: skip
    owners = outline(model)[1]
    assert owners == {
        **{f"node_{name}": f"node_{name}" for name in "adeghijy"}, "node_b": "node_a",
    }  # fmt: skip


def test_names_of_nodes_that_have_none() -> None:
    model = graph("a = Conv (x, w) \n y = Relu (a)")
    for node in model.graph:
        node.name = None
    assert [layer.name for layer in outline(model)[0]] == ["a"] and outline(model)[1] == {}
    model.graph[0].outputs[0].name = None
    assert [layer.name for layer in outline(model)[0]] == ["Conv 0"]


def test_the_precision_of_what_a_layer_reads() -> None:
    pair = "s = QuantizeLinear (x, step, zero) \n d = DequantizeLinear (s, step, zero) \n y = Conv (d, w)"
    assert layers(graph(pair, step=np.float32(0.1), zero=np.uint8(3))) == [("node_y", "Conv", "int8", ())]
    eight = graph(pair.replace("Conv (d, w)", "Relu (d)"), step=np.float32(0.1), zero=np.uint8(3))
    value(eight, "s").type = ir.TensorType(ir.DataType.FLOAT8E4M3FN)
    assert [layer[2] for layer in layers(eight)] == ["fp8"]
    for code, told in ((10, "fp16"), (16, "bf16"), (1, "fp32")):
        typed = graph(f"c = Cast <to = {code}> (x) \n y = Abs (c)")
        value(typed, "y").type = value(typed, "c").type
        assert layers(typed) == [("node_y", "Abs", told, ())]
        value(typed, "y").type = None
        assert layers(typed) == [("node_y", "Abs", "fp32", ())]
    assert isinstance(outline(graph(pair, step=np.float32(0.1), zero=np.uint8(3)))[0][0], NetworkLayer)


def test_the_layer_of_a_profiled_name_is_the_longest_that_it_begins_with() -> None:
    owners = {"conv": "first", "conv_1": "second", "other": "third"}
    assert [layer_of(name, owners) for name in ("conv", "conv_nchwc", "conv_1_nchwc", "conv_12", "convolution", "x_other")] == [
        "first", "first", "second", "first", "", "",
    ]  # fmt: skip
    assert layer_of("InsertedPrecisionFreeCast_other", owners) == "third"


def test_the_products_are_those_of_their_operands() -> None:
    made = products(6)
    assert list(made) == ["fp32", "int8"]
    for kind, dtype, left in (("fp32", np.float32, RNG.normal(size=(6, 6))), ("int8", np.uint8, RNG.integers(0, 256, (6, 6)))):
        right = numpy_helper.to_array(onnx.load_from_string(made[kind]).graph.initializer[0])
        session = onnxruntime.InferenceSession(made[kind], providers=["CPUExecutionProvider"])
        (found,) = session.run(["out"], {"left": left.astype(dtype)})
        assert right.dtype == (np.float32 if kind == "fp32" else np.int8) and len(np.unique(right)) > 25
        np.testing.assert_allclose(found, left.astype(dtype).astype(np.float64) @ right.astype(np.float64), rtol=1e-4, atol=1e-4)
        assert found.dtype == (np.float32 if kind == "fp32" else np.int32)
    wide = numpy_helper.to_array(onnx.load_from_string(products(64)["int8"]).graph.initializer[0])
    assert wide.min() >= -127 and wide.min() < -120 and wide.max() > 120
    assert products(6) == made


def test_the_chain_multiplies_by_its_weight_once_a_layer() -> None:
    made = onnx.load_from_string(chain())
    weight = numpy_helper.to_array(made.graph.initializer[0])[:, :, 0, 0].astype(np.float64)
    x = RNG.normal(size=(1, CHANNELS, EDGE, EDGE)).astype(np.float32)
    (found,) = onnxruntime.InferenceSession(chain(), providers=["CPUExecutionProvider"]).run(["out"], {"in": x})
    wanted = np.einsum("oc,nchw->nohw", np.linalg.matrix_power(weight, LAYERS), x)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())
    assert len(made.graph.node) == LAYERS and np.abs(found).max() < 10  # neither does it grow nor vanish
    assert np.abs(found).max() > 1e-30
