"""Folding keeps the function: each rule against ONNX Runtime running the file as it was."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.errors import GraphError
from toolkit.graph.fold import fold
from toolkit.graph.run import graph_runner

RANDOM = np.random.default_rng(5)
CHANNELS = 6


def model(nodes: list[onnx.NodeProto], result: tuple[int | str, ...], **constants: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", *result])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    proto.ir_version = 10
    onnx.checker.check_model(proto)
    return proto


def floats(*shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return RANDOM.uniform(low, high, shape).astype(np.float32)


def folded(proto: onnx.ModelProto) -> ir.Model:
    """The folded graph, once it is shown to compute the same."""
    graph = fold(ir.from_proto(proto))
    x = floats(3, 3, 8, 8)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(graph_runner(graph)(x), session.run(None, {"x": x})[0], rtol=1e-4, atol=1e-5)
    return graph


def operators(graph: ir.Model) -> list[str]:
    return [node.op_type for node in graph.graph]


def norm(source: str, target: str) -> tuple[onnx.NodeProto, dict[str, np.ndarray]]:
    constants = {"g": floats(CHANNELS), "b": floats(CHANNELS), "m": floats(CHANNELS), "v": floats(CHANNELS, low=0.1, high=3)}
    return helper.make_node("BatchNormalization", [source, *constants], [target], "bn", epsilon=1e-3), constants


@pytest.mark.parametrize("bias", [True, False])
def test_batchnorm_goes_into_the_convolution(bias: bool) -> None:
    node, constants = norm("c", "y")
    constants |= {"w": floats(CHANNELS, 3, 3, 3)} | ({"cb": floats(CHANNELS)} if bias else {})
    conv = helper.make_node("Conv", ["x", "w", "cb"][: 2 + bias], ["c"], "conv", pads=[1] * 4)
    graph = folded(model([conv, node], (CHANNELS, 8, 8), **constants))
    assert operators(graph) == ["Conv"]
    assert len(graph.graph[0].inputs) == 3


def test_a_chain_of_scales_and_shifts_goes_too() -> None:
    """What PaddlePaddle and Caffe write: Conv, BatchNorm, Mul and Add of [1, C, 1, 1]."""
    node, constants = norm("c", "n")
    constants |= {
        "w": floats(CHANNELS, 3, 1, 1),
        "s": floats(1, CHANNELS, 1, 1),
        "t": floats(CHANNELS, 1, 1),
        "h": np.float32(0.5),
    }
    chain = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        node,
        helper.make_node("Mul", ["s", "n"], ["p"], "mul"),
        helper.make_node("Add", ["p", "t"], ["q"], "add"),
        helper.make_node("Mul", ["q", "h"], ["y"], "half"),
    ]
    assert operators(folded(model(chain, (CHANNELS, 8, 8), **constants))) == ["Conv"]


def test_a_convolution_that_others_read_keeps_its_values() -> None:
    node, constants = norm("c", "n")
    constants["w"] = floats(CHANNELS, 3, 1, 1)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "conv"), node, helper.make_node("Sum", ["c", "n"], ["y"], "sum")]
    assert operators(folded(model(nodes, (CHANNELS, 8, 8), **constants))) == ["Conv", "Mul", "Add", "Add"]


def test_a_constant_that_is_not_one_a_channel_stays() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "conv"), helper.make_node("Add", ["c", "t"], ["y"], "add")]
    graph = folded(model(nodes, (CHANNELS, 8, 8), w=floats(CHANNELS, 3, 1, 1), t=floats(1, CHANNELS, 1, 8)))
    assert operators(graph) == ["Conv", "Add"]


def test_a_mean_over_space_becomes_a_pool() -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], "mean", keepdims=1),
        helper.make_node("Reshape", ["m", "shape"], ["y"], "reshape"),
    ]
    proto = model(nodes, (3,), axes=np.array([-1, 2]), shape=np.array([-1, 3]))
    assert operators(folded(onnx.shape_inference.infer_shapes(proto))) == ["GlobalAveragePool", "Flatten"]


def test_what_does_nothing_goes() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["i"], "i"),
        helper.make_node("Relu", ["i"], ["r"], "r"),
        helper.make_node("Dropout", ["r"], ["y"], "d"),
    ]
    graph = folded(model(nodes, (3, 8, 8)))
    assert operators(graph) == ["Relu"]
    assert graph.graph.outputs[0].name == "y"


def test_the_input_graph_is_left_alone() -> None:
    node, constants = norm("c", "y")
    constants["w"] = floats(CHANNELS, 3, 1, 1)
    graph = ir.from_proto(model([helper.make_node("Conv", ["x", "w"], ["c"], "conv"), node], (CHANNELS, 8, 8), **constants))
    before = ir.to_proto(graph).SerializeToString(deterministic=True)
    fold(graph)
    assert ir.to_proto(graph).SerializeToString(deterministic=True) == before


def test_statistics_that_are_computed_are_refused() -> None:
    node, constants = norm("x", "y")
    constants = {key: floats(3, low=0.1) for key in constants}
    del constants["m"]
    nodes = [helper.make_node("ReduceMean", ["x", "axes"], ["m"], "mean", keepdims=0), node]
    proto = model(nodes, (3, 8, 8), axes=np.array([0, 2, 3]), **constants)
    with pytest.raises(GraphError, match="'bn' needs its statistics as constants"):
        fold(ir.from_proto(proto))
