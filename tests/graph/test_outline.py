"""The outline names layers as the original network does, whatever Q/DQ pairs, Casts and fusions lie between."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from tests.graph.networks import fashion_graph
from toolkit.graph.fp16 import to_fp16
from toolkit.graph.outline import layer_of, outline


@pytest.fixture(scope="module")
def graph() -> ir.Model:
    return fashion_graph("resnet18")


def test_layers_are_those_of_the_network_with_their_activations_joined(graph: ir.Model) -> None:
    layers, owners = outline(graph)
    by_name = {layer.name: layer for layer in layers}
    assert [name for name in by_name if name.startswith("layer1.0")] == ["layer1.0.conv1", "layer1.0.conv2", "layer1.0.add"]
    assert set(by_name["layer2.0.add"].reads) == {"layer2.0.conv2", "layer2.0.downsample.0"}
    assert by_name["conv1"].reads == ()
    assert owners["layer1.0.relu"] == "layer1.0.conv1"
    assert {layer.precision for layer in layers} == {"fp32"}


def test_casts_are_passed_over_and_fp16_is_told(graph: ir.Model) -> None:
    plain, typed = outline(graph)[0], outline(to_fp16(graph))[0]
    assert [layer.name for layer in plain] == [layer.name for layer in typed]
    assert [layer.reads for layer in plain] == [layer.reads for layer in typed]
    assert {layer.precision for layer in typed if layer.kind == "Conv"} == {"fp16"}


@pytest.mark.parametrize(
    ("profiled", "layer"),
    [
        ("layer1.0.relu_nchwc", "layer1.0.conv1"),
        ("layer1.0.conv2_token_10", "layer1.0.conv2"),
        ("InsertedPrecisionFreeCast_layer1.0.conv1_nchwc", "layer1.0.conv1"),
        ("layer1.0.add", "layer1.0.add"),
        ("ReorderOutput_token_157", ""),
    ],
)
def test_what_onnx_runtime_compiled_is_found_again(graph: ir.Model, profiled: str, layer: str) -> None:
    assert layer_of(profiled, outline(graph)[1]) == layer


def test_a_quantized_layer_is_int8_and_keeps_its_name(graph: ir.Model) -> None:
    graph = graph.clone()  # others share it
    conv = next(node for node in graph.graph if node.name == "layer1.0.conv2")
    scale = ir.val("scale", const_value=ir.tensor([0.1], name="scale"))
    codes = ir.node("QuantizeLinear", [conv.inputs[0], scale], name="q")
    back = ir.node("DequantizeLinear", [codes.outputs[0], scale], name="dq")
    graph.graph.insert_before(conv, [codes, back])
    conv.replace_input_with(0, back.outputs[0])
    found = {layer.name: layer for layer in outline(graph)[0]}
    assert found["layer1.0.conv2"].precision == "int8"
    assert found["layer1.0.conv2"].reads == ("layer1.0.conv1",)
    assert "q" not in found
    assert "dq" not in found
