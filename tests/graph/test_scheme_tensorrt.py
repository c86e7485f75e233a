"""Where the pairs of scheme `tensorrt` stand, and what the graph answers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.networks import fashion_graph, pictures, run
from toolkit import calibration
from toolkit.graph.edit import constant
from toolkit.graph.fp16 import to_fp16
from toolkit.graph.qdq import quantize
from toolkit.graph.scheme_cpu import watched
from toolkit.recipe import Accept, Calibration, Precision


@pytest.fixture(scope="module", params=["resnet18", "resnet50"])
def graphs(request):
    plain = fashion_graph(request.param)
    images = pictures(64, "train")
    ranges = calibration.collect(plain, [images[i : i + 16] for i in range(0, 64, 16)], watched(plain))
    return plain, quantize(plain, ranges, Precision(int8=True), Calibration(), scheme="tensorrt")


def producer(value):
    return value.producer().op_type if value.producer() is not None else "input"


def test_every_layer_reads_int8_and_no_bias_does(graphs):
    _, graph = graphs
    layers = [node for node in graph.graph if node.op_type in ("Conv", "Gemm")]
    assert len(layers) in (21, 54)
    for node in layers:
        assert producer(node.inputs[0]) == producer(node.inputs[1]) == "DequantizeLinear"
        assert constant(node.inputs[2]).dtype == np.float32


def test_each_sum_has_one_pair_on_its_shortcut_and_a_bare_convolution(graphs):
    _, graph = graphs
    sums = [node for node in graph.graph if node.op_type == "Add"]
    assert len(sums) in (8, 16)
    for node in sums:
        assert sorted(map(producer, node.inputs)) == ["Conv", "DequantizeLinear"]
        bare = next(value for value in node.inputs if producer(value) == "Conv")
        assert bare.producer().name.endswith(("conv2", "conv3"))  # the block's last convolution, not the projection


def test_one_pair_serves_the_next_convolution_and_the_shortcut(graphs):
    _, graph = graphs
    quantizers = [node for node in graph.graph if node.op_type == "QuantizeLinear"]
    assert len({node.inputs[0] for node in quantizers}) == len(quantizers)
    relu = next(node for node in graph.graph if node.name == "layer1.1.add").inputs
    shortcut = next(value for value in relu if producer(value) == "DequantizeLinear")
    assert {use.node.op_type for use in shortcut.uses()} == {"Conv", "Add"}


def test_everything_is_symmetric_int8_with_a_scale_per_output_channel(graphs):
    _, graph = graphs
    for node in graph.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constant(node.inputs[2])
            assert zero.dtype == np.int8 and not zero.any()
            assert constant(node.inputs[1]).dtype == np.float32
            weight = constant(node.inputs[0])
            if weight is not None:
                assert node.attributes["axis"].value == 0  # Gemm's weight is transposed: its rows are the classes
                assert constant(node.inputs[1]).shape == (weight.shape[0],)
                assert np.abs(weight.astype(int)).max() == 127


def test_pooling_and_logits_stay_in_floating_point(graphs):
    _, graph = graphs
    pool = next(node for node in graph.graph if node.op_type == "GlobalAveragePool")
    assert producer(pool.inputs[0]) == "Relu"
    assert producer(graph.graph.outputs[0]) == "Gemm"


def test_its_answers_are_those_of_the_reference_on_the_cpu(graphs):
    plain, graph = graphs
    images = pictures(500)
    want, got, half = run(plain, images), run(graph, images), run(to_fp16(graph), images)
    least = Accept().min_agreement
    assert (got.argmax(1) == want.argmax(1)).mean() >= least
    assert (half.argmax(1) == want.argmax(1)).mean() >= least
