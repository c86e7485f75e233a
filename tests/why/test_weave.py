"""Copies of a graph's parts compute what the graph computes, and their rounding can be taken off."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from tests.graph.networks import fashion_graph, pictures, run
from toolkit.graph.fp16 import to_fp16
from toolkit.graph.rounding import as_rounded
from toolkit.onnxfile import serialize
from toolkit.why.blocks import blocks
from toolkit.why.strip import stripped
from toolkit.why.weave import Rounding, Weaver


def test_a_stripped_graph_computes_as_the_one_before_it_was_typed() -> None:
    graph = fashion_graph("resnet18")
    half = as_rounded(to_fp16(graph))
    batch = pictures(4)
    again = stripped(half)
    assert [value.name for value in again.graph.outputs] == [value.name for value in graph.graph.outputs]
    rounded = np.abs(run(half, batch) - run(graph, batch)).max()
    assert 0 < np.abs(run(again, batch) - run(graph, batch)).max() < rounded  # its weights are rounded yet, nothing else is


def test_blocks_are_the_layers_of_both_graphs() -> None:
    graph = fashion_graph("resnet18")
    found = blocks(graph, as_rounded(to_fp16(graph, ["layer2"])))
    kept = [block.name for block in found if block.precision == "fp32"]
    assert kept == [block.name for block in found if block.name.startswith("layer2.")]
    adds = [block for block in found if block.kind == "Add"]
    assert len(adds) == 8
    assert all(len(block.reads) == 2 and block.output.endswith(("relu", "relu_2", "relu_1")) for block in adds)


@pytest.mark.parametrize(
    ("rounding", "want"), [("as is", [0.0, 1.0, 255.0]), ("clipped", [0.0, 1.2, 255.0]), ("none", [-1.0, 1.2, 300.0])]
)
def test_pairs_round_clip_or_do_nothing(rounding: Rounding, want: list[float]) -> None:
    weaver = Weaver()
    x = weaver.input("x", [3])
    parameters = [weaver.constant(np.array(1, np.float32)), weaver.constant(np.array(0, np.uint8))]
    source = ir.Value(name="s", type=ir.TensorType(ir.DataType.FLOAT))
    quantize = ir.node("QuantizeLinear", [source, *parameters], name="q")
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *parameters], name="d")
    values = {source: x, **{value: value for value in parameters}}
    weaver.copy([quantize, dequantize], values, rounding)
    end = weaver.op("Identity", [values[dequantize.outputs[0]]])
    live = onnxruntime.InferenceSession(serialize(weaver.model([x], [end], 18)), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(live.run(None, {"x": np.array([-1.0, 1.2, 300.0], np.float32)})[0], want)
