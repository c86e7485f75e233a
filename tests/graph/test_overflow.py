"""What FP16 cannot hold is foreseen, kept in FP32, and then answered as FP32 answers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.networks import fashion_graph, pictures, run
from toolkit.graph.edit import constant
from toolkit.graph.fp16 import to_fp16
from toolkit.graph.magnitude import magnitudes
from toolkit.graph.overflow import LIMIT, Overflow, fp16_overflow
from toolkit.graph.variance import island_lines

BIG = 3e5


def swollen():
    """The packaged ResNet-18 with one inner tensor made huge and small again: the same function."""
    graph = fashion_graph("resnet18")
    tensors = graph.graph.initializers
    for name, factor in (("layer2.0.conv1.weight", BIG), ("layer2.0.conv1.bias", BIG), ("layer2.0.conv2.weight", 1 / BIG)):
        value = tensors[name]
        import onnx_ir as ir

        value.const_value = ir.tensor((constant(value) * factor).astype(np.float32), name=name)
    return graph


def test_only_what_passes_the_limit_is_named():
    seen = {
        "layer2.0.relu": LIMIT * 1.01,
        "layer1.0.relu": LIMIT * 0.99,
    }
    (found,) = fp16_overflow(fashion_graph("resnet18"), seen)
    assert found.tensor == "layer2.0.relu" and found.magnitude == pytest.approx(LIMIT * 1.01)
    assert set(found.nodes) == {"layer2.0.conv1", "layer2.0.relu", "layer2.0.conv2"}
    assert "layer2.0.relu" in str(found) and "65504" in str(found)


def test_every_tensor_is_looked_at_and_negative_values_count():
    graph, images = swollen(), pictures(32)
    peaks = magnitudes(graph, [images[:16], images[16:]])
    floats = {output.name for node in graph.graph for output in node.outputs}
    assert peaks.keys() == {graph.graph.inputs[0].name, *floats} - {r.inputs[0].name for r in graph.graph if r.op_type == "Relu"}
    assert peaks["logits"] == pytest.approx(np.abs(run(graph, images)).max(), rel=1e-5)
    assert peaks[graph.graph.inputs[0].name] == np.abs(images).max()
    assert "layer2.0.relu" in {found.tensor for found in fp16_overflow(graph, peaks)}


def test_a_kept_tensor_answers_where_half_precision_breaks():
    graph, images = swollen(), pictures(64)
    want = run(graph, images)
    with np.errstate(all="ignore"):
        half = run(to_fp16_carelessly(graph), images)
    assert not np.isfinite(half).all() or np.abs(half - want).max() > 1
    seen = {"layer2.0.relu": 1e6}
    keep = [name for found in fp16_overflow(graph, seen) for name in found.nodes]
    assert np.abs(run(to_fp16(graph, keep), images) - want).max() < 0.05


def to_fp16_carelessly(graph):
    """FP16 for all but the two layers whose constants it cannot hold; what lies between them overflows."""
    return to_fp16(graph, ["layer2.0.conv1", "layer2.0.conv2"])


def test_many_islands_for_one_reason_are_one_line():
    islands = [Overflow(nodes=(f"conv{i}", "add"), tensor=f"tensor{i}", magnitude=1e5) for i in range(5)]
    assert island_lines(islands) == (f"{islands[0]}; for the same reason at 4 more places, 6 nodes in all",)
    assert island_lines(islands[:3]) == tuple(map(str, islands[:3]))
