"""Which tensors of small graphs get a Q/DQ pair, by both schemes, rule by rule; nothing is exported or run."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.test_qdq_values import network
from toolkit.graph.edges import moves
from toolkit.graph.edit import finish
from toolkit.graph.scheme_cpu import computes, cpu_edges, miscounts, watched
from toolkit.graph.scheme_tensorrt import tensorrt_edges

HEAD = '<ir_version: 9, opset_import: ["" : 18, "own" : 1]>\nnet (float[N, 4, 8, 8] x) => (float[N, {classes}] y)\n'
ARRAYS = {
    **{f"w{i}": np.ones((4, 4, 1, 1), np.float32) for i in range(1, 6)},
    "g": np.ones((4, 3), np.float32),
    "b": np.ones(4, np.float32),
    "k": np.full((1, 4, 1, 1), 2.0, np.float32),
    "step": np.array(2.0, np.float32),
    "low": np.array(0.0, np.float32),
    "high": np.array(6.0, np.float32),
    "axes": np.array([2, 3], np.int64),
    "halves": np.array([2, 2], np.int64),
    "two": np.ones((4, 2, 1, 1), np.float32),
}
POOL = "AveragePool <kernel_shape = [2, 2], pads = [1, 1, 1, 1], strides = [2, 2]"
GATED = "a = Conv (x, w1)\n s = Sigmoid (a)\n v = Conv (x, w2)"
SPLIT = "Split <axis = 1, num_outputs = 2>"
END = "m = GlobalAveragePool (c)\n f = Flatten (m)\n y = MatMul (f, g)"


def graph(body: str, classes: int = 3) -> ir.Model:
    """`body` are its nodes; those that end it read `c`, unless it makes `y` itself."""
    end = "" if "y =" in body else END
    return network(f"{HEAD.format(classes=classes)}{{\n{body}\n{end}\n}}", ARRAYS)


def cpu(body: str, keep: tuple[str, ...] = ()) -> str:
    """The tensors with a pair, in graph order; of those that only the end of the graph has, none is told."""
    return " ".join(str(edge.value.name) for edge in cpu_edges(graph(body), keep) if edge.value.name not in ("m", "f"))


def tensorrt(body: str, keep: tuple[str, ...] = (), pools: bool = False) -> dict[str, str]:
    """The tensors with a pair, and for which of their readers."""
    edges = tensorrt_edges(graph(body), keep, pools)
    return {str(e.value.name): " ".join(str(n.outputs[0].name) for n in e.readers or ()) for e in edges}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("c = Conv (x, w1)", "x c"),
        ("a = Conv (x, w1)\n c = Relu (a)", "x c"),  # a cut belongs to what stands before it
        ("a = Conv (x, w1)\n c = Clip (a, low, high)", "x c"),
        ("a = Conv (x, w1)\n c = Sigmoid (a)", "x a c"),  # another function stands between two pairs
        ("a = Conv (x, w1)\n t = Sigmoid (a)\n c = Mul (a, t)", "x a c"),  # SiLU is one function
        ("a = Conv (x, w1)\n r = Relu (a)\n c = Add (r, a)", "x a c"),  # what Relu belongs to is read by others as well
        ("t = MaxPool <kernel_shape = [2, 2]> (x)\n c = Conv (t, w1)", "x t c"),
        ("t = Transpose <perm = [0, 1, 3, 2]> (x)\n u = Transpose <perm = [0, 1, 3, 2]> (t)\n c = Conv (u, w1)", "x t u c"),
        ("t = Relu (x)\n c = Conv (t, w1)", "t c"),  # nothing stands before it that a backend would fuse it with
        ("t = own.Relu (x)\n c = Conv (t, w1)", "t c"),
        ("t = own.MaxPool (x)\n c = Conv (t, w1)", "t c"),  # nobody knows what it does
        ("c = own.Conv (x, w1)", ""),
        ("t = Softmax (x)\n c = Conv (t, w1)", "t c"),
    ],
)
def test_what_a_convolution_reads_and_gives_has_a_pair(body: str, expected: str) -> None:
    assert cpu(body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a = Conv (x, w1)\n v = Conv (x, w2)\n t = Add (a, v)\n c = Conv (t, w3)", "x a v t c"),
        ("a = Conv (x, w1)\n v = Conv (x, w2)\n t = Add (a, v)\n r = Relu (t)\n c = Conv (r, w3)", "x a v r c"),
        ("a = Conv (x, w1)\n t = Add (a, x)\n c = Conv (t, w3)", "x a t c"),  # the images come quantized as well
        ("a = Conv (x, w1)\n e = Softmax (x)\n t = Add (a, e)\n c = Conv (t, w3)", "x a t c"),  # one of both is float
        ("a = Conv (x, w1)\n v = Conv (x, w2)\n t = Add (a, v)\n e = Softmax (t)\n c = Conv (e, w3)", "x a v e c"),
        # what the sum reads has a pair for its sake alone: where something reads the sum in INT8, at once or behind its Relu
        (f"{GATED}\n t = Add (s, v)\n c = Conv (t, w3)", "x a s v t c"),
        (f"{GATED}\n t = Add (s, v)\n r = Relu (t)\n c = Conv (r, w3)", "x a s v r c"),
        (f"{GATED}\n t = Add (s, v)\n e = Softmax (t)\n c = Conv (e, w3)", "x a v e c"),
        ("a = Conv (x, w1)\n t = Add (a, k)\n c = Conv (t, w3)", "x a t c"),  # a constant is no activation: a function of `a`
        (f"a = Conv (x, w1)\n t = Concat <axis = 1> (a, x)\n q = {SPLIT} (t)\n c = Conv (q, w3)", "x a t q c"),
        ("a = Conv (x, w1)\n t = Mul (a, x)\n c = Conv (t, w3)", "x a t c"),
        ("a = Conv (x, w1)\n t = Sub (a, x)\n c = Conv (t, w3)", "x a t c"),  # the pair is for the convolution
        ("a = Conv (x, w1)\n v = Conv (x, w2)\n t = Add (a, v)\n u = Add (t, a)\n c = Conv (u, w3)", "x a v t u c"),
        ("a = Conv (x, w1)\n v = Conv (x, w2)\n t = own.Add (a, v)\n c = Conv (t, w3)", "x a v t c"),
    ],
)
def test_a_sum_is_quantized_between_quantized_operators(body: str, expected: str) -> None:
    assert cpu(body) == expected


def test_a_layer_that_is_kept_reads_what_it_read_before() -> None:
    body = "a = Conv (x, w1)\n r = Relu (a)\n t = Conv (r, w2)\n c = Conv (t, w3)"
    assert cpu(body) == "x r t c"
    assert cpu(body, ("node_t",)) == "x r t c"  # r is still a convolution's result, t still read in INT8
    assert cpu(body, ("node_a", "node_t")) == "t c"
    assert cpu(body, ("node_c", "node_t")) == "x r"
    assert tensorrt(body) == {"x": "a", "r": "t", "t": "c", "f": "y"}
    assert tensorrt(body, ("node_t",)) == {"x": "a", "t": "c", "f": "y"}
    assert tensorrt(body, ("node_*",)) == {}


def test_products_of_activations_and_logits_stay_in_floating_point() -> None:
    assert cpu("a = Conv (x, w1)\n t = MatMul (a, x)\n e = ReduceMean (t, axes)\n f = Flatten (e)\n y = MatMul (f, g)") == "x a e"
    edges = cpu_edges(graph("c = Conv (x, w1)"), ())
    assert [edge.value.name for edge in edges] == ["x", "c", "m", "f"]
    ends = "c = Conv (x, w1)\n m = GlobalAveragePool (c)\n y = Flatten (m)"
    assert [edge.value.name for edge in cpu_edges(graph(ends, 4), ())] == ["x", "c"]  # the average is the answer


def test_a_bias_that_is_computed_is_none_of_the_operands() -> None:
    """Its pair would fuse nothing: the convolution adds it as int32."""
    body = "e = ReduceMean <keepdims = 0> (x, axes0)\n c = Conv (x, w1, e)"
    arrays = {**ARRAYS, "axes0": np.array([0, 2, 3], np.int64)}
    made = network(f"{HEAD.format(classes=3)}{{\n{body}\n{END}\n}}", arrays)
    assert [edge.value.name for edge in cpu_edges(made, ())][:2] == ["x", "c"]


def test_a_unit_goes_with_the_pair_in_front_of_it() -> None:
    edges = {e.value.name: e.unit for e in cpu_edges(graph("a = Conv (x, w1)\n c = HardSwish (a)"), ())}
    assert edges["x"] is None and edges["c"] is None
    assert edges["a"] is not None and [node.op_type for node in edges["a"].nodes] == ["HardSwish"]
    assert all(edge.readers is None for edge in cpu_edges(graph("c = Conv (x, w1)"), ()))


@pytest.mark.parametrize(("ceil", "count"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_pool_that_would_count_wrongly_is_no_int8_operator(ceil: int, count: int) -> None:
    pool = f"p = {POOL}, ceil_mode = {ceil}, count_include_pad = {count}> (a)"
    made = graph(f"a = Conv (x, w1)\n {pool}\n c = Conv (p, w2)")
    (node,) = (node for node in made.graph if node.op_type == "AveragePool")
    assert miscounts(node) == bool(ceil and count)
    assert computes(node, ()) != miscounts(node)
    assert not miscounts(next(node for node in made.graph if node.op_type == "Conv"))
    for name in ("ceil_mode", "count_include_pad"):  # absent: it is off
        assert not miscounts(ir.node("AveragePool", node.inputs, {name: 1}))
    foreign = ir.node("AveragePool", node.inputs, {"ceil_mode": 1, "count_include_pad": 1}, domain="own")
    assert not miscounts(foreign)
    assert not computes(foreign, ())


def test_what_int8_computes_is_known_and_not_kept() -> None:
    made = graph("a = Conv (x, w1)\n t = Add (a, x)\n u = Add (t, k)\n v = Sub (u, x)\n q = Conv (x, v)\n c = Mul (v, q)")
    can = {str(node.outputs[0].name): computes(node, ()) for node in made.graph}
    assert can == {"a": True, "t": True, "u": False, "v": False, "q": False, "c": True, "m": True, "f": False, "y": True}
    assert not any(computes(node, ("node_a", "node_t")) for node in made.graph if node.outputs[0].name in ("a", "t"))


def test_pixels_come_quantized_and_other_types_have_no_pair() -> None:
    made = graph("c = Conv (x, w1)")
    made.graph.inputs[0].type = ir.TensorType(ir.DataType.FLOAT16)
    assert [edge.value.name for edge in cpu_edges(made, ())] == ["c", "m", "f"]
    text = f"{HEAD.format(classes=3)}{{\n d = DequantizeLinear (x, step, z)\n c = Conv (d, w1)\n{END}\n}}"
    made = network(text.replace("float[N, 4", "uint8[N, 4"), {**ARRAYS, "z": np.array(0, np.uint8)})
    assert [edge.value.name for edge in cpu_edges(made, ())] == ["c", "m", "f"]


BLOCK = "a = Conv (x, w1)\n v = Conv (a, w2)\n {0}\n t = {1}\n r = Relu (t)\n c = Conv (r, w3)"


@pytest.mark.parametrize(
    ("between", "join", "shortcut"),
    [
        ("", "Add (v, x)", "x"),
        ("", "Add (x, v)", "x"),
        ("d = Conv (x, w4)", "Add (v, d)", "d"),  # of two convolutions the shallower one
        ("d = Conv (x, w4)", "Add (d, v)", "d"),
        ("d = Conv (x, w4)\n e = Conv (d, w5)\n h = Conv (e, w5)", "Add (v, h)", "v"),
        ("d = Relu (v)", "Add (d, x)", None),  # no bare convolution
        ("d = Sigmoid (v)\n e = Mul (d, v)", "Add (v, e)", None),  # which something else reads too
        ("", "Add (v, k)", None),  # a constant is no shortcut
        ("", "Mul (v, x)", None),
        ("", "own.Add (v, x)", None),
    ],
)
def test_a_residual_sum_has_a_pair_on_its_shortcut(between: str, join: str, shortcut: str | None) -> None:
    found = tensorrt(BLOCK.format(between, join))
    summed = {name for name, readers in found.items() if "t" in readers.split()}
    assert summed == ({shortcut} if shortcut else set())
    assert "a" in found and "r" in found and "c" not in found


def test_the_pairs_of_tensorrts_scheme_are_in_graph_order_and_serve_all_their_readers() -> None:
    body = "a = Conv (x, w1)\n d = Conv (x, w4)\n t = Add (a, d)\n r = Relu (t)\n c = Conv (r, w3)"
    edges = tensorrt_edges(graph(body), ())
    assert [edge.value.name for edge in edges] == ["x", "d", "r", "f"]  # of two branches of one depth the second stays
    assert {str(n.outputs[0].name) for n in edges[0].readers or ()} == {"a", "d"}
    assert all(edge.unit is None for edge in edges)


@pytest.mark.parametrize("pool", ["GlobalAveragePool (r)", f"{POOL}> (r)", "ReduceMean (r, axes)"])
def test_pools_have_a_pair_where_it_is_asked_for(pool: str) -> None:
    body = f"a = Conv (x, w1)\n r = Relu (a)\n p = {pool}\n c = Conv (p, w2)"
    assert "r" not in tensorrt(body)
    assert tensorrt(body, pools=True)["r"] == "p"
    assert tensorrt(body, pools=True)["c"] == "m"
    assert "r" not in tensorrt(body, ("node_p",), pools=True)


def test_a_mean_of_no_picture_is_no_pool() -> None:
    body = "a = Conv (x, w1)\n f = Flatten (a)\n c = ReduceMean (f, one)\n y = Concat <axis = 1> (c, c, c)"
    made = network(f"{HEAD.format(classes=3)}{{\n{body}\n}}", {**ARRAYS, "one": np.array([1], np.int64)})
    assert [edge.value.name for edge in tensorrt_edges(made, (), True)] == ["x"]
    for node in made.graph:
        node.outputs[0].shape = None
    assert [edge.value.name for edge in tensorrt_edges(made, (), True)] == ["x"]


def test_what_is_watched_is_where_the_values_come_from() -> None:
    body = f"a = Conv (x, w1)\n p = MaxPool <kernel_shape = [2, 2]> (a)\n q = {SPLIT} (p)\n c = Conv (q, two)"
    made = graph(body)
    assert watched(made) == ("x", "a", "c", "m")
    assert [moves(node) for node in made.graph] == [False, True, True, False, False, True, False]
    assert watched(finish(made)) == ("x", "a", "c", "m")
