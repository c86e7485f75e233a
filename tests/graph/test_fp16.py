"""FP16 with FP32 ends: near the FP32 answers, half the bytes, islands where asked, and no silent infinity."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from toolkit.errors import GraphError
from toolkit.graph.edit import finish, initializer
from toolkit.graph.fp16 import to_fp16, unsafe_on_cpu
from toolkit.graph.run import graph_runner
from toolkit.onnxfile import serialize
from toolkit.reference.check import agreement
from toolkit.types import Array


def test_it_answers_as_fp32_does(graph: ir.Model, batch: Array) -> None:
    half = to_fp16(graph)
    found = agreement(graph_runner(graph)(batch), graph_runner(half)(batch))
    assert found.cosine > 0.9999
    assert found.top1 == 1.0
    assert found.max_abs > 0  # else nothing was converted


def test_only_the_ends_are_fp32(graph: ir.Model) -> None:
    half = to_fp16(graph)
    assert half.graph.inputs[0].dtype == half.graph.outputs[0].dtype == ir.DataType.FLOAT
    assert half.graph.outputs[0].name == "logits"
    for node in half.graph:
        if node.op_type != "Cast":
            assert node.outputs[0].dtype == ir.DataType.FLOAT16, node.name
    assert len(serialize(half)) < 0.55 * len(serialize(graph))


def test_an_island_stays_fp32_between_casts(graph: ir.Model, batch: Array) -> None:
    half = to_fp16(graph, ["layer2", "fc"])
    kinds = {node.name: node.outputs[0].dtype for node in half.graph if node.op_type != "Cast"}
    assert all(
        (kind == ir.DataType.FLOAT) == (name.startswith("layer2.") or name == "fc") for name, kind in kinds.items() if name
    )
    assert agreement(graph_runner(graph)(batch), graph_runner(half)(batch)).top1 == 1.0


def test_a_constant_beyond_fp16_is_named(graph: ir.Model) -> None:
    broken = graph.clone()
    node = next(node for node in broken.graph if node.name == "fc")
    node.replace_input_with(2, initializer(broken.graph, "huge", np.full(10, 7e4, np.float32)))
    with pytest.raises(GraphError, match=r"'huge' reaches 70000.*keep_fp32"):
        to_fp16(broken)
    to_fp16(broken, ["fc"])  # the remedy works


def test_the_input_graph_is_left_alone(graph: ir.Model) -> None:
    before = serialize(graph)
    to_fp16(graph)
    assert serialize(graph) == before


def test_a_dimension_that_becomes_a_factor_meets_fp16() -> None:
    """Attention by torch's older exporter: x / sqrt(Cast(Shape)). The Cast stays float32, its readers get float16."""
    shape = ir.Value(name="x", shape=ir.Shape(["N", 4]), type=ir.TensorType(ir.DataType.FLOAT))
    model = ir.Model(ir.Graph([shape], [], nodes=[], opset_imports={"": 18}, name="g"), ir_version=10)
    last = shape
    for op, attributes in (("Shape", {"start": 1}), ("Cast", {"to": ir.DataType.FLOAT.value}), ("Sqrt", {}), ("Div", {})):
        inputs = [shape, last] if op == "Div" else [last]
        node = ir.node(op, inputs, attributes, outputs=[ir.Value(name=op.lower())], name=op.lower())
        model.graph.append(node)
        last = node.outputs[0]
    model.graph.outputs.append(last)
    half = to_fp16(finish(model))
    values = np.array([[2, 4, 6, 8]], np.float32)
    np.testing.assert_array_equal(graph_runner(half)(values), values / 2)
    assert {node.name: node.outputs[0].dtype for node in half.graph}["sqrt"] == ir.DataType.FLOAT16


def test_a_transpose_that_ends_onnx_runtime_is_kept_in_fp32() -> None:
    """[N, L, D] -> [L, N, D] in float16 before a MatMul: ONNX Runtime 1.32 dies of it, the whole process with it."""
    entry = ir.Value(name="x", shape=ir.Shape(["N", 3, 4]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes = [ir.node("Transpose", [entry], {"perm": [1, 0, 2]}, outputs=[ir.Value(name="t")], name="t")]
    model = ir.Model(ir.Graph([entry], [], nodes=nodes, opset_imports={"": 18}, name="g"), ir_version=10)
    weight = initializer(model.graph, "w", np.eye(4, 5, dtype=np.float32))
    nodes.append(ir.node("MatMul", [nodes[0].outputs[0], weight], outputs=[ir.Value(name="y")], name="y"))
    model.graph.append(nodes[1])
    model.graph.outputs.append(nodes[1].outputs[0])
    model = finish(model)
    assert unsafe_on_cpu(model) == ("t",)
    half = to_fp16(model, unsafe_on_cpu(model))
    kinds = {node.name: node.outputs[0].dtype for node in half.graph}
    assert kinds["t"] == ir.DataType.FLOAT
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(graph_runner(half)(values)[..., :4], values.transpose(1, 0, 2))
