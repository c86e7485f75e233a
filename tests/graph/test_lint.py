"""Lint on our own graphs, on placements made wrong on purpose, and on another tool's."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.networks import fashion_graph
from toolkit.graph.edit import constant, initializer, make
from toolkit.graph.fp16 import to_fp16
from toolkit.graph.lint import finding_lines, lint
from toolkit.graph.qdq import quantize
from toolkit.recipe import Calibration, Precision


class Guess:
    def range(self, tensor, method, percentile=99.99, *, levels=127):
        return -4.0, 4.0


def quantized(name="resnet18", scheme="tensorrt", keep=()):
    return quantize(fashion_graph(name), Guess(), Precision(int8=True, keep=keep), Calibration(), scheme=scheme)


def rules(graph, scheme="tensorrt", keep=()):
    return {(finding.rule, finding.node) for finding in lint(graph, scheme, keep)}


def node(graph, name):
    return next(node for node in graph.graph if node.name == name)


def pair_behind(graph, value, readers, zero=0):
    """A Q/DQ pair on `value` for `readers`."""
    scale = initializer(graph.graph, f"{value.name}.s", np.float32(0.1))
    point = initializer(graph.graph, f"{value.name}.z", np.int8(zero))
    one = make("QuantizeLinear", [value, scale, point], f"{value.name}.q")
    two = make("DequantizeLinear", [one.outputs[0], scale, point], f"{value.name}.dq")
    graph.graph.insert_after(value.producer(), [one, two])
    for reader in readers:
        for index, operand in enumerate(reader.inputs):
            if operand is value:
                reader.replace_input_with(index, two.outputs[0])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("scheme", ["cpu", "tensorrt"])
@pytest.mark.parametrize("keep", [(), ("fc",), ("layer2",)])
def test_our_own_graphs_are_clean(name, scheme, keep):
    graph = quantized(name, scheme, keep)
    assert lint(graph, scheme, keep) == ()
    if scheme == "tensorrt":
        assert lint(to_fp16(graph), scheme, keep) == ()


def test_a_graph_without_pairs_has_no_findings():
    assert lint(fashion_graph("resnet18"), "tensorrt") == lint(fashion_graph("resnet18"), "cpu") == ()


def test_pairs_on_both_operands_of_a_sum_split_its_fusion():
    graph = quantized()
    conv = node(graph, "layer1.0.conv2")
    pair_behind(graph, conv.outputs[0], [node(graph, "layer1.0.add")])
    assert rules(graph) == {("split-fusion", "layer1.0.add")}
    finding = lint(graph, "tensorrt")[0]
    assert "layer1.0.conv2" in finding.fix and finding.node in str(finding)


def test_a_shortcut_without_a_pair_leaves_the_sum_in_floating_point():
    graph = quantized()
    add = node(graph, "layer1.0.add")
    index = next(i for i, value in enumerate(add.inputs) if value.producer().op_type == "DequantizeLinear")
    add.replace_input_with(index, add.inputs[index].producer().inputs[0].producer().inputs[0])
    assert rules(graph) == {("float-add", "layer1.0.add")}
    assert rules(graph, keep=["layer1.0.add"]) == set()


def test_a_pair_before_the_relu_splits_the_fusion():
    graph = quantized()
    conv = node(graph, "layer1.0.conv1")
    pair_behind(graph, conv.outputs[0], [node(graph, "layer1.0.relu")])
    assert ("split-fusion", f"{conv.outputs[0].name}.q") in rules(graph)


def test_a_quantized_bias_is_found():
    graph = quantized()
    conv = node(graph, "layer1.0.conv1")
    scale = initializer(graph.graph, "b.s", np.float32(0.01))
    bias = initializer(graph.graph, "b.q", np.zeros(constant(conv.inputs[2]).shape, np.int32))
    dequantize = make("DequantizeLinear", [bias, scale, initializer(graph.graph, "b.z", np.int32(0))], "b.dequantize")
    graph.graph.insert_before(conv, dequantize)
    conv.replace_input_with(2, dequantize.outputs[0])
    assert rules(graph) == {("quantized-bias", "layer1.0.conv1")}
    assert "quantized-bias" not in {rule for rule, _ in rules(graph, "cpu")}  # ONNX Runtime takes it


def test_one_scale_for_a_whole_weight_is_found():
    graph = quantized()
    weight = node(graph, "layer1.0.conv1").inputs[1].producer()
    weight.replace_input_with(1, initializer(graph.graph, "one.s", np.float32(0.01)))
    weight.replace_input_with(2, initializer(graph.graph, "one.z", np.int8(0)))
    assert rules(graph) == {("per-tensor-weights", "layer1.0.conv1")}


def test_scales_along_another_axis_are_found():
    graph = quantized()
    weight = node(graph, "layer1.0.conv1").inputs[1].producer()
    weight.attributes["axis"] = ir.AttrInt64("axis", 1)
    assert rules(graph) == {("weight-axis", "layer1.0.conv1")}


def test_a_zero_point_is_found():
    graph = quantized()
    pair = node(graph, "layer1.0.relu.quantize")
    zero = initializer(graph.graph, "odd.z", np.int8(-128))
    pair.replace_input_with(2, zero)
    pair.outputs[0].uses()[0].node.replace_input_with(2, zero)
    assert rules(graph) == {("asymmetric", "layer1.0.relu.quantize"), ("asymmetric", "layer1.0.relu.dequantize")}


def test_a_float16_scale_is_found():
    graph = quantized()
    pair = node(graph, "layer1.0.relu.quantize")
    pair.replace_input_with(1, initializer(graph.graph, "half.s", np.float16(0.1)))
    assert rules(graph) == {("half-scale", "layer1.0.relu.quantize")}


def test_quantizing_twice_is_found():
    graph = quantized()
    first = node(graph, "layer1.0.relu.dequantize")
    pair_behind(graph, first.outputs[0], [node(graph, "layer1.0.conv2")])
    assert rules(graph) == {("double-quantize", f"{first.outputs[0].name}.q")}


def test_two_pairs_on_one_tensor_are_found():
    graph = quantized()
    shared = node(graph, "layer1.0.relu_2.quantize").inputs[0]
    readers = [use.node for use in node(graph, "layer1.0.relu_2.dequantize").outputs[0].uses()]
    reader = next(reader for reader in readers if reader.op_type == "Conv")
    reader.replace_input_with(0, shared)
    pair_behind(graph, shared, [reader])
    assert {rule for rule, _ in rules(graph)} == {"double-quantize"}


def test_a_weight_without_its_input_and_the_other_way_round_are_found():
    graph = quantized()
    conv = node(graph, "layer1.0.conv2")
    conv.replace_input_with(0, conv.inputs[0].producer().inputs[0].producer().inputs[0])
    assert ("half-quantized", "layer1.0.conv2") in rules(graph)
    graph = quantized()
    conv = node(graph, "layer1.0.conv2")
    plain = constant(fashion_graph("resnet18").graph.initializers["layer1.0.conv2.weight"])
    conv.replace_input_with(1, initializer(graph.graph, "plain", plain))
    assert rules(graph) >= {("half-quantized", "layer1.0.conv2")}


def test_the_other_schemes_placement_is_not_this_schemes():
    assert {rule for rule, _ in rules(quantized(scheme="tensorrt"), "cpu")} == {"float-result", "float-add"}
    assert {rule for rule, _ in rules(quantized(scheme="cpu"), "tensorrt")} == {"asymmetric", "split-fusion"}


def test_one_rule_at_many_blocks_is_one_line_with_a_count():
    found = lint(quantized(scheme="tensorrt"), "cpu")
    sums = [finding.node for finding in found if finding.rule == "float-add"]
    (line,) = [line for line in finding_lines(found) if line.startswith("float-add")]
    assert line.startswith(
        f"float-add: {len(sums)} nodes ({', '.join(sums[:3])} and {len(sums) - 3} more): an operand has no pair"
    )
    assert len(finding_lines(found)) == 2 < len(found)
    assert finding_lines(found[:1]) == (str(found[0]),)


def test_a_line_says_where_its_words_are_of_the_first_node_only():
    graph = quantized()
    for name in ("layer1.0", "layer2.0"):
        conv = node(graph, f"{name}.conv2")
        pair_behind(graph, conv.outputs[0], [node(graph, f"{name}.add")])
    (line,) = finding_lines(lint(graph, "tensorrt"))
    assert line.startswith("split-fusion: 2 nodes (layer1.0.add, layer2.0.add): ")
    assert "'layer1.0.conv2'" in line and line.endswith("(of the first; the others alike: toolkit inspect ENGINE)")
