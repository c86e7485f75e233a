"""What a GPU holds in half precision is rounded in the prediction too: bit for bit as onnx's own evaluator rounds it."""

from __future__ import annotations

import warnings

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from toolkit.graph.edit import finish
from toolkit.graph.fp16 import to_fp16
from toolkit.graph.rounding import UNROUNDING, as_rounded, holds_half
from toolkit.graph.run import graph_runner, predicting_runner
from toolkit.graph.variance import vanishing, variances
from toolkit.onnxfile import serialize
from toolkit.types import Array, Float, Target

GPU, CPU = Target("rtx", 89), Target("cpu")
NORM = """
g (float[N,64] x) => (float[N,64] y)
  <float two = {2}, float eps = {1e-5}, int64[1] last = {-1}, float gain = {1.5}, float bias = {0.25}> {
  mean = ReduceMean(x, last)
  d = Sub(x, mean)
  square = Pow(d, two)
  variance = ReduceMean(square, last)
  more = Add(variance, eps)
  root = Sqrt(more)
  unit = Div(d, root)
  scaled = Mul(unit, gain)
  y = Add(scaled, bias)
}"""


def graph_from(text: str) -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model('<ir_version: 9, opset_import: ["": 18]>' + text))
    for node in model.graph:
        node.name = node.outputs[0].name
    return finish(model)


def evaluate(model: ir.Model, x: Array) -> Array:
    """onnx's reference evaluator, which computes with numpy's types."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer: Array = ReferenceEvaluator(ir.to_proto(model)).run(None, {model.graph.inputs[0].name: x})[0]
    return answer


def snr(truth: Array, answer: Array) -> float:
    return float(10 * np.log10((truth**2).sum() / ((truth - answer) ** 2).sum()))


def activations(size: float) -> Float:
    return (np.random.default_rng(0).normal(size=(16, 64)) * size).astype(np.float32)


@pytest.mark.parametrize("size", [1, 400])
def test_a_layer_norm_in_single_operators_is_predicted_as_half_precision_has_it(size: float) -> None:
    half, x = to_fp16(graph_from(NORM)), activations(size)
    want = evaluate(half, x)
    np.testing.assert_array_equal(predicting_runner(half, GPU)(x), want)
    truth = evaluate(graph_from(NORM), x)
    assert snr(truth, graph_runner(half)(x)) > 100  # ONNX Runtime's CPU hides it
    assert snr(truth, want) > 60 if size == 1 else snr(truth, want) < 1


def test_its_variance_stays_in_fp32_by_default() -> None:
    graph, x = graph_from(NORM), activations(400)
    (branch,) = variances(graph)
    assert branch.nodes == ("mean", "d", "square", "variance", "more", "root", "unit")
    kept = to_fp16(graph, branch.nodes)
    assert snr(evaluate(graph, x), predicting_runner(kept, GPU)(x)) > 60


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("s = Mul(x, x) m = ReduceMean(s, last) r = Sqrt(m) y = Div(x, r)", {"s", "m", "r", "y"}),
        ("n = ReduceL2(x, last) c = Clip(n, eps) y = Div(x, c)", {"n", "c", "y"}),
        ("a = ReduceMean(x, last) s = Mul(x, x) m = ReduceMean(s, last) q = Mul(a, a) v = Sub(m, q) r = Sqrt(v) y = Div(x, r)",
         {"a", "s", "m", "q", "v", "r", "y"}),
        ("s = Mul(x, x) f = Mul(s, eps) m = ReduceSum(f, last) y = Div(x, m)", {"s", "f", "m", "y"}),
        ("m = ReduceMean(x, last) g = Sigmoid(m) y = Mul(x, g)", set()),  # squeeze and excite: no square
        ("s = Pow(x, three) t = Tanh(s) y = Mul(x, t)", set()),  # GELU by tanh: nothing reduces it
    ],
)  # fmt: skip
def test_every_form_of_a_norm_is_found_and_nothing_else(body: str, kept: set[str]) -> None:
    constants = "<int64[1] last = {-1}, float eps = {0.001}, float three = {3}>"
    graph = graph_from(f"g (float[N,64] x) => (float[N,64] y) {constants} {{ {body} }}")
    assert {name for branch in variances(graph) for name in branch.nodes} == kept


def test_an_epsilon_that_half_precision_has_not_is_named() -> None:
    graph = graph_from("g (float[N,64] x) => (float[N,64] y) <float eps = {1e-9}> { a = Abs(x) s = Add(a, eps) y = Div(x, s) }")
    (found,) = vanishing(graph)
    assert found.nodes == ("s", "y") and "1e-09 of s is 0 in float16" in str(found)
    x = np.zeros((1, 64), np.float32)
    assert np.isnan(predicting_runner(to_fp16(graph), GPU)(x)).all()
    assert (predicting_runner(to_fp16(graph, found.nodes), GPU)(x) == 0).all()


@pytest.mark.parametrize("kind", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16])
def test_every_value_rounds_as_the_type_does(kind: ir.DataType) -> None:
    """All magnitudes from the subnormal to the infinite, through a chain of operators, moves and casts."""
    model = graph_from("g (float[N,64] x) => (float[N,64] y) { a = Mul(x, x) b = Relu(a) c = Neg(b) d = Sqrt(b) y = Add(c, d) }")
    half = to_fp16(model)
    x = (np.random.default_rng(1).normal(size=(64, 64)) * 10.0 ** np.linspace(-9, 6, 64)[:, None]).astype(np.float32)
    if kind == ir.DataType.BFLOAT16:
        for node in half.graph:
            if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT16:
                node.attributes["to"] = ir.AttrInt64("to", int(kind))
            for output in node.outputs:
                output.type = ir.TensorType(kind) if output.dtype == ir.DataType.FLOAT16 else output.type
        half = finish(half)
    assert holds_half(half)
    kept = np.float16 if kind == ir.DataType.FLOAT16 else ml_dtypes.bfloat16
    with np.errstate(all="ignore"):
        h = x.astype(kept).astype(np.float32)
        a = (h * h).astype(kept).astype(np.float32)
        d = np.sqrt(a).astype(kept).astype(np.float32)
        want = (d - a).astype(kept).astype(np.float32)
    np.testing.assert_array_equal(predicting_runner(half, GPU)(x), want)
    if kind == ir.DataType.FLOAT16:
        np.testing.assert_array_equal(evaluate(half, x), want)


def test_a_network_answers_as_the_evaluator_does(graph: ir.Model, batch: Array) -> None:
    """Sums are taken in another order there, so values differ in the last bits; every tensor is rounded all the same."""
    half = to_fp16(graph)
    want, ours = evaluate(half, batch[:2]), predicting_runner(half, GPU)(batch[:2])
    exact = graph_runner(graph)(batch[:2])
    assert snr(want, ours) > snr(exact, want) > 50
    assert snr(exact, ours) < snr(exact, graph_runner(half)(batch[:2])) - 3  # not what the CPU makes of it


def test_the_optimizer_leaves_every_rounding_in(graph: ir.Model, tmp_path) -> None:
    for model in (graph, graph_from(NORM)):
        rounded = as_rounded(to_fp16(model))
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(serialize(rounded), options, ["CPUExecutionProvider"], disabled_optimizers=[*UNROUNDING])
        kinds = [[n.attribute[0].i for n in m.graph.node if n.op_type == "Cast"] for m in (
            ir.to_proto(rounded), onnx.load(tmp_path / "optimized.onnx"))]  # fmt: skip
        half = int(ir.DataType.FLOAT16)
        assert kinds[0].count(half) == kinds[1].count(half) > 8


def test_the_graph_given_is_left_alone() -> None:
    half = to_fp16(graph_from(NORM))
    before = serialize(half)
    as_rounded(half)
    assert serialize(half) == before


def test_the_cpu_is_predicted_as_it_computes(graph: ir.Model, batch: Array) -> None:
    half = to_fp16(graph)
    np.testing.assert_array_equal(predicting_runner(half, CPU)(batch), graph_runner(half)(batch))
