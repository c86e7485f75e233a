"""Parts are found in any network, whatever its nodes are called."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.networks import fashion_graph
from toolkit.graph.edit import matches, weight_of
from toolkit.tuning.parts import Unit, scope, units, why_few


def renamed(graph: ir.Model, style: str) -> ir.Model:
    """The same network with its nodes called as another exporter would: `/layer1/layer1.0/conv1/Conv`, or `n17`."""
    graph = graph.clone()
    for index, node in enumerate(graph.graph):
        steps = (node.name or "").split(".")
        path = "/".join(".".join(steps[: depth + 1]) if depth < 2 else steps[depth] for depth in range(len(steps)))
        node.name = f"/{path}/{node.op_type}" if style == "paths" else f"n{index}"
    return graph


def network(text: str) -> ir.Model:
    """A small network whose convolutions, Wn, are 1x1 from 2 channels to 2."""
    body = text.replace("; ", "\n")
    head = '<ir_version: 10, opset_import: ["" : 18]>\nnet (float[N,2,4,4] x) => (float[N,2,4,4] y)'
    graph = ir.from_onnx_text(f"{head} {{ {body} }}")
    for index, node in enumerate(graph.graph):
        node.name = f"{node.op_type}_{index}"
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    weights = {v.name: v for node in graph.graph for v in node.inputs if v is not None and v.name and v.name[0] == "W"}
    for name, value in weights.items():
        value.const_value = ir.tensor(np.ones((2, 2, 1, 1), np.float32), name=name)
        value.shape, value.type = ir.Shape((2, 2, 1, 1)), ir.TensorType(ir.DataType.FLOAT)
        graph.graph.register_initializer(value)
    return graph


def heavy(unit: Unit) -> list[str | None]:
    return [node.name for node in unit.nodes if weight_of(node) is not None]


@pytest.mark.parametrize("style", ["modules", "paths", "numbers"])
def test_a_resnet_has_the_same_parts_whatever_its_names(style: str) -> None:
    graph = fashion_graph("resnet18")
    graph = graph if style == "modules" else renamed(graph, style)
    parts = units(graph)
    assert [len(heavy(part)) for part in parts] == [1, 2, 2, 3, 2, 3, 2, 3, 2, 1]
    assert why_few(parts) is None
    layers = [node.name for node in graph.graph if weight_of(node) is not None]
    assert [name for part in parts for name in heavy(part)] == layers
    for part in parts:  # what a recipe is told to keep is this part, and nothing of another
        assert [name for name in layers if matches(name, part.keep)] == heavy(part)


def test_parts_are_called_after_their_scope() -> None:
    assert [part.keep for part in units(renamed(fashion_graph("resnet18"), "paths"))][:2] == [
        ("/conv1/Conv",),
        ("/layer1/layer1.0/*",),
    ]
    assert units(renamed(fashion_graph("resnet18"), "numbers"))[1].name == "n2 .. n5"


@pytest.mark.parametrize("most", [18, 7, 4, 1])
@pytest.mark.parametrize("style", ["modules", "paths", "numbers"])
def test_there_are_no_more_parts_than_asked_for(style: str, most: int) -> None:
    graph = fashion_graph("resnet50")
    parts = units(graph if style == "modules" else renamed(graph, style), most)
    assert 1 <= len(parts) <= most
    assert sum(len(heavy(part)) for part in parts) == 54


def test_a_network_without_a_cut_is_cut_into_runs() -> None:
    """Every sum reads the input again, so that two tensors go on from anywhere."""
    lines = ["c0 = Conv(x, W0)"]
    for index in range(1, 9):
        lines += [f"s{index} = Add(c{index - 1}, x)", f"c{index} = Conv(s{index}, W{index})"]
    graph = network("; ".join([*lines, "y = Add(c8, x)"]))
    parts = units(graph)
    assert [len(heavy(part)) for part in parts] == [1] * 9
    assert [name for part in parts for name in heavy(part)] == [node.name for node in graph.graph if node.op_type == "Conv"]


def test_a_tensor_that_only_tells_a_shape_hides_no_cut() -> None:
    graph = network("a = Conv(x, W0); s = Shape(x); b = Conv(a, W1); c = Reshape(b, s); y = Conv(c, W2)")
    next(node for node in graph.graph if node.op_type == "Shape").outputs[0].type = ir.TensorType(ir.DataType.INT64)
    assert [len(heavy(part)) for part in units(graph)] == [1, 1, 1]


def test_where_there_is_one_part_it_says_why() -> None:
    assert why_few(units(network("y = Conv(x, W0)"))) == (
        "no mixed precision: the network has 1 layer with a weight, which make a single part"
    )
    assert why_few(units(network("y = Relu(x)"))) == (
        "no mixed precision: no layer with a weight is named, so none can be left out"
    )


def test_scopes() -> None:
    def of(name: str) -> str:
        return "".join(scope(ir.node("Relu", [], name=name)))

    assert [of("layer1.0.conv1"), of("/features/features.1/conv/Conv"), of("conv1")] == [
        "layer1.0",
        "/features/features.1/conv",
        "",
    ]
