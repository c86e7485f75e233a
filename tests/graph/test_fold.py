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


@pytest.mark.parametrize("operator", ["BatchNormalization", "Mul", "Add"])
def test_a_bias_that_is_computed_is_not_lost(operator: str) -> None:
    """Here by the image; only a constant one can take the scale."""
    node, constants = norm("c", "y")
    constants |= {
        "w": floats(CHANNELS, 3, 1, 1),
        "t": floats(1, CHANNELS, 1, 1),
        "u": floats(CHANNELS, 3),
        "axes": np.array([0, 2, 3]),
    }
    before = [
        helper.make_node("ReduceMean", ["x", "axes"], ["pixel"], "mean", keepdims=0),
        helper.make_node("MatMul", ["u", "pixel"], ["bias"], "bias"),
        helper.make_node("Conv", ["x", "w", "bias"], ["c"], "conv"),
    ]
    behind = node if operator == "BatchNormalization" else helper.make_node(operator, ["c", "t"], ["y"], "behind")
    assert "Conv" in operators(folded(model([*before, behind], (CHANNELS, 8, 8), **constants)))


@pytest.mark.parametrize("operator", ["Mul", "Add"])
def test_one_number_of_more_dimensions_than_the_convolution_stays(operator: str) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node(operator, ["c", "k"], ["five"], "k"),
        helper.make_node("Reshape", ["five", "shape"], ["y"], "back"),
    ]
    constants = {"w": floats(CHANNELS, 3, 1, 1), "k": np.full((1,) * 5, 2, np.float32), "shape": np.array([0, -1, CHANNELS, 64])}
    assert operators(folded(model(nodes, (3, CHANNELS, 64), **constants))) == ["Conv", operator, "Reshape"]


@pytest.mark.parametrize("epsilon", [None, 0.3])
def test_an_epsilon_that_is_not_given_is_that_of_the_operator(epsilon: float | None) -> None:
    node, constants = norm("c", "y")
    del node.attribute[:]
    if epsilon is not None:
        node.attribute.append(helper.make_attribute("epsilon", epsilon))
    constants |= {"w": floats(CHANNELS, 3, 1, 1), "v": floats(CHANNELS, low=1e-5, high=1e-4)}
    assert operators(
        folded(model([helper.make_node("Conv", ["x", "w"], ["c"], "conv"), node], (CHANNELS, 8, 8), **constants))
    ) == ["Conv"]


def test_a_norm_that_no_convolution_precedes_scales_and_shifts_at_any_rank() -> None:
    constants = {name: floats(3, low=0.1) for name in "gbmv"}
    first = [helper.make_node("Relu", ["x"], ["r"], "r"), helper.make_node("BatchNormalization", ["r", *"gbmv"], ["y"], "bn")]
    graph = folded(model(first, (3, 8, 8), **constants))
    assert [(node.op_type, node.name) for node in graph.graph] == [("Relu", "r"), ("Mul", "bn.mul"), ("Add", "bn")]
    flat = [
        helper.make_node("Reshape", ["x", "shape"], ["f"], "f"),
        helper.make_node("BatchNormalization", ["f", *"gbmv"], ["y"], "bn"),
    ]
    proto = onnx.shape_inference.infer_shapes(model(flat, (3, 64), shape=np.array([-1, 3, 64]), **constants))
    assert operators(folded(proto)) == ["Reshape", "Mul", "Add"]
    alone = model([helper.make_node("BatchNormalization", ["x", *"gbmv"], ["y"], "bn")], (3, 8, 8), **constants)
    assert operators(folded(alone)) == ["Mul", "Add"]


def test_names_of_what_is_folded_are_those_of_the_convolution() -> None:
    node, constants = norm("c", "y")
    constants["stem.weight"] = floats(CHANNELS, 3, 1, 1)
    graph = folded(model([helper.make_node("Conv", ["x", "stem.weight"], ["c"], "conv"), node], (CHANNELS, 8, 8), **constants))
    (conv,) = graph.graph
    assert conv.name == "conv" and len(conv.inputs) == 3
    assert [value.name.partition("_")[0] for value in conv.inputs[1:] if value and value.name] == ["stem.weight", "stem.bias"]


def test_one_sum_leaves_the_weights_and_their_type() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "conv"), helper.make_node("Add", ["t", "c"], ["y"], "add")]
    graph = folded(model(nodes, (CHANNELS, 8, 8), w=floats(CHANNELS, 3, 1, 1), t=floats(CHANNELS, 1, 1)))
    assert operators(graph) == ["Conv"] and graph.graph[0].inputs[1].name == "w"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("axes", "keepdims", "operator"),
    [([2, 3], 1, "GlobalAveragePool"), ([2, 3], None, "GlobalAveragePool"), ([2, 3], 0, "ReduceMean"), ([1, 2], 1, "ReduceMean"),
     ([3], 1, "ReduceMean"), (None, 1, "ReduceMean")],
)  # fmt: skip
@pytest.mark.parametrize("opset", [13, 18])
def test_a_mean_is_a_pool_over_both_axes_of_space_alone(
    axes: list[int] | None, keepdims: int | None, operator: str, opset: int
) -> None:
    """Axes are an attribute until opset 17, an input since."""
    given = {} if keepdims is None else {"keepdims": keepdims}
    constants = {"axes": np.array(axes)} if axes and opset == 18 else {}
    given = {**given, "axes": axes} if axes and opset == 13 else given
    shape = [d if axes is not None and i not in axes else 1 for i, d in enumerate((3, 3, 8, 8))]
    shape = [d for i, d in enumerate(shape) if keepdims != 0 or i not in (axes or ())]
    proto = model([helper.make_node("Relu", ["x"], ["y"], "r")], (3, 8, 8))
    relu = helper.make_node("Relu", ["x"], ["r"], "r")
    mean = helper.make_node("ReduceMean", ["r", *constants], ["y"], "mean", **given)
    whole = helper.make_graph(
        [relu, mean], "g", proto.graph.input, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    proto = helper.make_model(whole, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    graph = folded(onnx.shape_inference.infer_shapes(proto))
    assert [(node.op_type, node.name) for node in graph.graph] == [("Relu", "r"), (operator, "mean")]


@pytest.mark.parametrize(
    ("operator", "operand", "result", "kept"),
    [
        ("Squeeze", [2, 3], (3,), False),
        ("Reshape", [-1, 3], (3,), False),
        ("Squeeze", [3], (3, 1), True),
        ("Reshape", [-1, 3, 1], (3, 1), True),
        ("Reshape", [-1, 1], (1,), True),
    ],
)
def test_a_shape_is_a_flatten_where_channels_stay(operator: str, operand: list[int], result: tuple[int, ...], kept: bool) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"], "p"), helper.make_node(operator, ["p", "to"], ["y"], "flat")]
    proto = onnx.shape_inference.infer_shapes(model(nodes, result, to=np.array(operand)))
    graph = folded(proto)
    assert [(node.op_type, node.name) for node in graph.graph][1:] == [(operator if kept else "Flatten", "flat")]


def test_what_is_not_pooled_is_no_flatten_of_channels() -> None:
    proto = model([helper.make_node("Reshape", ["x", "to"], ["y"], "flat")], (3,), to=np.array([-1, 3]))
    assert operators(folded(onnx.shape_inference.infer_shapes(proto))) == ["Reshape"]


def test_operators_of_another_domain_are_passed_over() -> None:
    """And what stands behind them is folded all the same."""
    node, constants = norm("c", "y")
    nodes = [
        helper.make_node("Identity", ["x"], ["i"], "i", domain="own"),
        helper.make_node("Conv", ["i", "w"], ["c"], "conv"),
        node,
    ]
    known = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width, 8, 8]) for name, width in (("i", 3), ("c", CHANNELS))
    ]
    whole = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CHANNELS, 8, 8])],
        [numpy_helper.from_array(array, name) for name, array in {**constants, "w": floats(CHANNELS, 3, 1, 1)}.items()],
        value_info=known,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    proto = helper.make_model(whole, opset_imports=opsets, ir_version=10)
    assert operators(fold(ir.from_proto(proto))) == ["Identity", "Conv"]
    whole.node[0].domain, whole.node[1].domain = "", "own"
    assert operators(fold(ir.from_proto(helper.make_model(whole, opset_imports=opsets, ir_version=10))))[-2:] == ["Mul", "Add"]


def test_a_sum_of_two_is_an_add_of_its_name() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"], "r"), helper.make_node("Sum", ["x", "r"], ["y"], "sum")]
    assert [(node.op_type, node.name) for node in folded(model(nodes, (3, 8, 8))).graph][1:] == [("Add", "sum")]
    nodes[1].input.append("x")
    assert operators(folded(model(nodes, (3, 8, 8)))) == ["Relu", "Sum"]


def test_a_network_that_hands_out_what_it_was_given_keeps_the_identity() -> None:
    assert operators(folded(model([helper.make_node("Identity", ["x"], ["y"], "i")], (3, 8, 8)))) == ["Identity"]


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
