"""What tells two graphs apart, and what does not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from toolkit.calibration.fingerprint import Fingerprint


def network(
    *,
    attribute: ir.Attr | None = None,
    op: str = "Conv",
    domain: str = "",
    tensor: str = "c",
    kind: type = np.float32,
    weight: float = 1.0,
    weights: str = "w",
    dim: str = "n",
    result: str = "y",
    doc: str = "",
) -> ir.Model:
    """One convolution, then a Relu."""
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape([dim, 1, 4, 4]))
    held = np.full((1, 1, 1, 1), weight, kind)
    w = ir.Value(name=weights, const_value=ir.tensor(held, name=weights), type=ir.TensorType(ir.DataType.FLOAT))
    attributes = [] if attribute is None else [attribute]
    layer = ir.Node(domain, op, [x, w], attributes, outputs=[ir.Value(name=tensor)], doc_string=doc)
    end = ir.Node("", "Relu", [layer.outputs[0]], outputs=[ir.Value(name=result)])
    graph = ir.Graph([x], [end.outputs[0]], nodes=[layer, end], initializers=[w], opset_imports={"": 18}, name="g")
    return ir.Model(graph, ir_version=10, producer_name=doc or None)


def pads(*values: int) -> ir.Attr:
    return ir.AttrInt64s("pads", list(values))


def table(*values: float) -> ir.Attr:
    return ir.AttrTensor("table", ir.tensor(np.array(values, np.float32)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"attribute": pads(0, 0, 0, 0)}),
        ({"attribute": pads(0, 0, 0, 0)}, {"attribute": pads(1, 1, 1, 1)}),
        ({"attribute": table(*range(2000))}, {"attribute": table(*range(1000), 0, *range(1001, 2000))}),  # a print leaves it out
        ({}, {"op": "Gemm"}),
        ({}, {"domain": "com.microsoft"}),
        ({}, {"tensor": "d"}),
        ({}, {"kind": np.float16}),
        ({}, {"weights": "v"}),
        ({}, {"dim": "m"}),
        ({}, {"result": "z"}),
    ],
)
def test_layers_that_compute_otherwise_are_told_apart(one: dict[str, object], other: dict[str, object]) -> None:
    assert Fingerprint.of(network(**one)).layers != Fingerprint.of(network(**other)).layers  # type: ignore[arg-type]


def test_weights_are_told_apart_by_their_names_and_values_alone() -> None:
    plain, other, renamed = (Fingerprint.of(network(**more)) for more in ({}, {"weight": 2.0}, {"weights": "v"}))  # type: ignore[arg-type]
    assert plain.weights != other.weights and plain.layers == other.layers
    assert plain.weights != renamed.weights
    assert plain == Fingerprint.of(network(doc="another writer"))


def test_the_order_of_what_is_sorted_does_not_count() -> None:
    graph = network(attribute=pads(0, 0, 0, 0))
    graph.graph[0].attributes["group"] = ir.AttrInt64("group", 1)
    turned = network(attribute=ir.AttrInt64("group", 1))
    turned.graph[0].attributes["pads"] = pads(0, 0, 0, 0)
    assert Fingerprint.of(graph) == Fingerprint.of(turned)


def test_a_weight_without_values_and_an_input_left_out_have_a_fingerprint() -> None:
    graph = network()
    bare = ir.Value(name="b", type=ir.TensorType(ir.DataType.FLOAT))
    graph.graph.initializers["b"] = bare
    graph.graph[0].resize_inputs(3)
    found = Fingerprint.of(graph)
    assert found.layers != Fingerprint.of(network()).layers and found.weights != Fingerprint.of(network()).weights
