"""FP8 pairs: scales, rounding, what stays out, and a prediction that is onnx's own evaluator's bit for bit."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import msgspec
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.graph.conftest import Observed
from tests.graph.networks import fashion_graph, pictures
from toolkit.errors import RecipeError
from toolkit.graph.edit import constant, finish
from toolkit.graph.fp8 import BREAKS_FP8, FP8, caveat, first_layers, fp8_scale, fp8_weight
from toolkit.graph.fp16 import to_bf16, to_fp16
from toolkit.graph.lint import lint
from toolkit.graph.qdq import quantize
from toolkit.graph.run import graph_runner, predicting_runner
from toolkit.harness.answers import snr
from toolkit.onnxfile import serialize
from toolkit.pipeline import export, prepare, typed
from toolkit.recipe import Calibration, Precision, Recipe
from toolkit.trip import refuse_precision
from toolkit.types import Array, Target
from toolkit.why.probe import live

GPU = Target("rtx", 89)
EIGHT = Precision(fp8=True)


class Wide:
    """Every tensor reaches 448: scale 1, so that sums of small integers are exact in any order."""

    def range(self, tensor: str, method: str, percentile: float = 99.99, *, levels: int = 127) -> tuple[float, float]:
        assert method == "minmax"  # whatever the recipe says
        return -448.0, 448.0


def dense() -> ir.Model:
    """image -> Gemm -> Relu -> Gemm -> Relu -> Gemm with small integer weights; the largest, 7, makes their scale 2^-6."""
    random = np.random.default_rng(0)
    weights = []
    for name, shape in (("w0", (16, 24)), ("w1", (24, 24)), ("w2", (24, 10))):
        array = random.integers(-1, 2, shape).astype(np.float32)
        array[0, 0] = 7
        weights.append(numpy_helper.from_array(array, name))
    layers = [("Gemm", ["x", "w0"], "a"), ("Relu", ["a"], "b"), ("Gemm", ["b", "w1"], "c"), ("Relu", ["c"], "d")]
    nodes = [helper.make_node(op, inputs, [name], name=name) for op, inputs, name in [*layers, ("Gemm", ["d", "w2"], "y")]]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in (("x", 16), ("y", 10))]
    graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], weights)
    return finish(ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)))


def evaluate(model: ir.Model, x: Array) -> Array:
    answer: Array = ReferenceEvaluator(ir.to_proto(model)).run(None, {model.graph.inputs[0].name: x})[0]
    return answer


@pytest.mark.parametrize("compute", ["fp32", "fp16"])
def test_the_prediction_is_the_evaluators_bit_for_bit(compute: str) -> None:
    graph = quantize(dense(), Wide(), EIGHT, Calibration(method="entropy"), scheme="tensorrt")
    graph = to_fp16(graph) if compute == "fp16" else graph
    x = np.random.default_rng(1).integers(-2, 3, (64, 16)).astype(np.float32)
    want = evaluate(graph, x)
    np.testing.assert_array_equal(predicting_runner(graph, GPU)(x), want)
    np.testing.assert_array_equal(graph_runner(graph)(x), want)
    exact = evaluate(dense(), x)
    assert 0 < np.abs(want - exact).max() < 0.1 * np.abs(exact).max()  # rounded, and not beside itself


@pytest.mark.parametrize("recipe", ["pairs", "streams", "outliers", "all"])
def test_hostile_weights_are_predicted_as_the_evaluator_answers(recipe: str) -> None:
    """Weights and activations spread over decades, where a Relu or a rounding left out would show. Sums of floats differ in their
    order, so that a value may fall to the other side of a step; that is far below what FP8 itself costs."""
    graph = fashion_graph("resnet18", recipe)
    eight = quantize(graph, Observed(graph, pictures(16)), EIGHT, Calibration(), scheme="tensorrt")
    x = pictures(2)
    want, ours, exact = evaluate(eight, x), predicting_runner(eight, GPU)(x), graph_runner(graph)(x)
    assert snr(want, ours) > snr(exact, want) + 20
    for node in (node for node in eight.graph if node.op_type == "DequantizeLinear"):
        stored, step = constant(node.inputs[0]), constant(node.inputs[1])
        if stored is not None and step is not None:  # a weight: what the evaluator makes of the original is what is stored
            original = constant(next(one for one in graph.graph if one.name == layer_of(node)).inputs[1])
            assert original is not None
            np.testing.assert_array_equal(stored.view(np.uint8), quantized_by_onnx(original, step).view(np.uint8))


def test_pairs_that_are_kept_apart_lose_no_relu() -> None:
    """`why` runs a graph with its pairs in floating point, where the same optimizer once cost 60 dB without a word."""
    graph = quantize(dense(), Wide(), EIGHT, Calibration(), scheme="tensorrt")
    x = np.random.default_rng(1).integers(-2, 3, (64, 16)).astype(np.float32)
    np.testing.assert_array_equal(live(graph).run(None, {"x": x})[0], evaluate(graph, x))


def test_int8_for_tensorrt_is_predicted_as_typed(graph: ir.Model, observed: Observed, batch: Array) -> None:
    """ONNX Runtime rounds the biases of quantized layers, which moves as many answers as INT8 itself; TensorRT does not."""
    eight = quantize(graph, observed, Precision(int8=True), Calibration(method="minmax"), scheme="tensorrt")
    eight.opset_imports[""] = 19  # the first whose pairs the evaluator knows; they are the same
    want = evaluate(eight, batch[:2])
    assert snr(want, predicting_runner(eight, GPU)(batch[:2])) > 100 > 60 > snr(want, graph_runner(eight)(batch[:2]))


def test_a_file_with_fp8_inside_is_its_own_right_reference_and_no_engine_for_a_cpu(tmp_path: Path) -> None:
    """It was called INT8, its reference lost a Relu (-7 dB), and a CPU engine would have lost it too."""
    graph = fashion_graph("resnet18")
    eight = quantize(graph, Observed(graph, pictures(8)), EIGHT, Calibration(), scheme="tensorrt")
    ir.save(eight, tmp_path / "fp8.onnx")
    pixels = '[preprocess]\nsize = [28, 28]\ncolor = "L"\nmean = [0.286]\nstd = [0.353]\n'
    recipe = Recipe.parse(f'name = "f"\n[reference]\nonnx = "{tmp_path / "fp8.onnx"}"\n{pixels}[build]\ntarget = "rtx:sm89"\n')
    trip = prepare(recipe)
    assert snr(evaluate(eight, pictures(2)), trip.source.reference(pictures(2))) > 100
    assert trip.source.reference.manifest.precision == "fp8" and "which is FP8" in " ".join(trip.source.reference.manifest.notes)
    typed(trip, GPU)
    with pytest.raises(RecipeError, match="has FP8 inside, which target cpu computes wrongly"):
        typed(trip, Target("cpu"))
    notes = " ".join(export(recipe, tmp_path / "out.onnx").notes)
    assert "ONNX Runtime computes FP8 wrongly by default" in notes and all(name in notes for name in BREAKS_FP8)
    assert "disabled_optimizers" not in " ".join(caveat(graph))


def layer_of(pair: ir.Node) -> str:
    (reader,) = pair.outputs[0].consumers()
    return str(reader.name)


def quantized_by_onnx(array: Array, step: Array) -> Array:
    zero = ir.tensor(np.array(0, FP8), name="z")
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, array.shape)
    q = helper.make_tensor_value_info("q", TensorProto.FLOAT8E4M3FN, array.shape)
    constants = [numpy_helper.from_array(step, "s"), ir.to_proto(zero)]
    model = helper.make_model(helper.make_graph([node], "one", [x], [q], constants), opset_imports=[helper.make_opsetid("", 19)])
    answer: Array = ReferenceEvaluator(model).run(None, {"x": array})[0]
    return answer


def test_onnx_runtime_alone_drops_a_relu_before_float8() -> None:
    """Why `BREAKS_FP8` is there. When this fails, the optimizer has been mended and the exception may go."""
    graph = quantize(dense(), Wide(), EIGHT, Calibration(), scheme="tensorrt")
    x = np.random.default_rng(1).integers(-2, 3, (64, 16)).astype(np.float32)
    others = [name for name in BREAKS_FP8 if name != "ReluQuantRewrite"]
    session = onnxruntime.InferenceSession(serialize(graph), providers=["CPUExecutionProvider"], disabled_optimizers=others)
    careless = session.run(None, {"x": x})[0]
    assert not np.array_equal(careless, evaluate(graph, x)) and "ReluQuantRewrite" in BREAKS_FP8


def test_weights_are_rounded_to_the_nearest_of_e4m3_with_one_scale() -> None:
    values = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
    finite = np.sort(values[np.isfinite(values)])
    array = (np.random.default_rng(2).normal(size=(64, 32)) * 3).astype(np.float32)
    quantized, step = fp8_weight(array)
    assert step.shape == () and float(step) == np.float32(np.abs(array).max() / 448) and quantized.dtype == FP8
    nearest = np.abs(finite[None] - (array / step).reshape(-1, 1)).min(axis=1)
    ours = np.abs(quantized.astype(np.float64).reshape(-1) - (array / step).reshape(-1))
    np.testing.assert_allclose(ours, nearest, atol=1e-12)
    assert fp8_weight(np.zeros((2, 2), np.float32))[1] == 1 and fp8_scale(0.0, 0.0) == 1
    assert np.isfinite(quantized.astype(np.float32)).all()


def test_what_reads_the_image_stays_out_and_the_rest_is_clean(graph: ir.Model, observed: object) -> None:
    eight = quantize(graph, observed, EIGHT, Calibration(), scheme="tensorrt")  # type: ignore[arg-type]
    assert first_layers(graph) == ("conv1",)
    layers = {node.name: node for node in eight.graph if node.op_type in ("Conv", "Gemm")}
    plain = [name for name, node in layers.items() if constant(node.inputs[1]) is not None]
    assert plain == ["conv1"] and lint(eight, "tensorrt", ["conv1"]) == ()
    pairs = [node for node in eight.graph if node.op_type == "QuantizeLinear"]
    assert pairs and all(node.outputs[0].dtype == ir.DataType.FLOAT8E4M3FN for node in pairs)
    assert eight.opset_imports[""] >= 19
    kept = quantize(graph, observed, Precision(fp8=True, keep=("fc",)), Calibration(), scheme="tensorrt")  # type: ignore[arg-type]
    assert sum(node.op_type == "DequantizeLinear" for node in kept.graph) < sum(
        node.op_type == "DequantizeLinear" for node in eight.graph
    )


def test_bfloat16_is_near_and_needs_no_range(graph: ir.Model, batch: Array) -> None:
    half = to_bf16(graph)
    want, ours = graph_runner(graph)(batch), predicting_runner(half, GPU)(batch)
    assert 30 < 10 * np.log10((want**2).sum() / ((want - ours) ** 2).sum()) < 60
    assert half.opset_imports[""] >= 22 and half.graph.outputs[0].dtype == ir.DataType.FLOAT
    kinds = {node.outputs[0].dtype for node in half.graph if node.op_type != "Cast"}
    assert kinds == {ir.DataType.BFLOAT16}


@pytest.mark.parametrize(("precision", "word"), [({"fp8": True}, "fp8"), ({"compute": "bf16"}, "bf16")])
def test_targets_without_the_type_are_refused(recipe: Recipe, precision: dict[str, object], word: str) -> None:
    wanted = msgspec.structs.replace(recipe, precision=msgspec.structs.replace(recipe.precision, **precision))
    for target in ("cpu", "openvino", "cuda"):
        with pytest.raises(RecipeError, match=rf"{word}.*is for tensorrt and rtx; target {target}"):
            refuse_precision(wanted, Target.parse(target))
    refuse_precision(wanted, GPU)


def test_int8_and_fp8_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        Precision(int8=True, fp8=True)
    with pytest.raises(ValueError, match="`keep` has no meaning"):
        Precision(keep=("fc",))
