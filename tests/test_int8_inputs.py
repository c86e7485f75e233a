"""Networks and images that INT8 cannot do much with: each has a clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit import pipeline
from toolkit.errors import BudgetError, CalibrationError
from toolkit.recipe import Accept, Calibration, Precision, Preprocess, Recipe, Reference
from toolkit.types import Target

CPU = Target("cpu")
PLAIN = Preprocess(size=(8, 8), color="L", mean=(0.0,), std=(1.0,))


def network(path: Path, nodes: list[onnx.NodeProto], **weights: np.ndarray) -> Path:
    """A classifier [N, 1, 8, 8] -> logits [N, 4] out of these nodes."""
    value = helper.make_tensor_value_info
    ends = [value("x", TensorProto.FLOAT, ["N", 1, 8, 8])], [value("y", TensorProto.FLOAT, ["N", 4])]
    held = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "net", *ends, held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def recipe(model: Path, images: np.ndarray, **accept: float) -> Recipe:
    data = model.with_suffix(".npy")
    np.save(data, images.astype(np.float32))
    return Recipe(
        name="net",
        reference=Reference(onnx=str(model)),
        preprocess=PLAIN,
        precision=Precision(int8=True),
        calibration=Calibration(data=str(data)),
        accept=Accept(**accept),  # type: ignore[arg-type]
    )


def convolution(path: Path) -> Path:
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "v"], ["y"], "fc"),
    ]
    return network(path, nodes, w=random.normal(size=(8, 1, 3, 3)), b=random.normal(size=8), v=random.normal(size=(8, 4)))


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(count, 1, 8, 8))


def test_a_graph_with_nothing_to_quantize_says_what_it_is_made_of(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("AveragePool", ["x"], ["a"], "pool", kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Flatten", ["r"], ["y"], "flat"),
    ]
    model = network(tmp_path / "net.onnx", nodes)
    with pytest.raises(CalibrationError, match=r"nothing to quantize.*AveragePool, Flatten, Relu") as error:
        pipeline.prepare(recipe(model, pictures(12)))
    assert "int8 = false" in str(error.value.remedy)


def test_images_all_alike_are_said_to_be(tmp_path: Path) -> None:
    model, same = convolution(tmp_path / "net.onnx"), np.repeat(pictures(1), 12, axis=0)
    trip = pipeline.prepare(recipe(model, same), proof=False)
    assert any("calibration images are the same" in remark for remark in trip.remarks)
    other = pipeline.prepare(recipe(model, pictures(12)), proof=False)
    assert not any("calibration images are the same" in remark for remark in other.remarks)


def test_one_image_takes_the_simple_settings(tmp_path: Path) -> None:
    trip = pipeline.prepare(recipe(convolution(tmp_path / "net.onnx"), pictures(1)), proof=False)
    assert any("too few calibration images" in remark for remark in trip.remarks)
    assert trip.recipe.precision.rounding == "nearest"
    assert pipeline.typed(trip, CPU).graph.outputs[0].name


def test_a_layer_that_is_not_finite_in_int8_alone_is_named(tmp_path: Path) -> None:
    """Logits over the least value of a layer, which is 0.0001 in FP32 and 0 in INT8."""
    nodes = [
        helper.make_node("Conv", ["x", "one", "tiny"], ["z"], "conv"),
        helper.make_node("GlobalAveragePool", ["z"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "v"], ["g"], "fc"),
        helper.make_node("Neg", ["z"], ["n"], "minus"),
        helper.make_node("GlobalMaxPool", ["n"], ["m"], "least"),
        helper.make_node("Flatten", ["m"], ["d"], "flat2"),
        helper.make_node("Div", ["g", "d"], ["y"], "ratio"),
    ]
    weights = {"one": np.ones((1, 1, 1, 1)), "tiny": np.array([1e-4]), "v": np.array([[1.0, 2, 3, 4]])}
    images = pictures(24)
    images[:, 0, 3, 3] = 0
    trip = pipeline.prepare(recipe(network(tmp_path / "net.onnx", nodes, **weights), images))
    with pytest.raises(BudgetError, match=r"'ratio' \(Div\) answers NaN or infinity in the typed graph for number 0 ") as error:
        pipeline.prove(trip, pipeline.typed(trip, CPU), CPU)
    assert 'keep = ["ratio"]' in str(error.value.remedy)
