"""FP16 with FP32 ends: near the FP32 answers, half the bytes, islands where asked, and no silent infinity."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from toolkit.errors import GraphError
from toolkit.graph.edit import initializer
from toolkit.graph.fp16 import to_fp16
from toolkit.graph.run import graph_runner
from toolkit.onnxfile import serialise
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
    assert len(serialise(half)) < 0.55 * len(serialise(graph))


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
    before = serialise(graph)
    to_fp16(graph)
    assert serialise(graph) == before
