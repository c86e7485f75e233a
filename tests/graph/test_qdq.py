"""Q/DQ for the CPU: every layer is fused into an INT8 kernel, the numbers are right, and what is kept is kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from toolkit.errors import CalibrationError, GraphError
from toolkit.graph.edit import constant
from toolkit.graph.qdq import activation_scale, quantize, quantized_layers
from toolkit.graph.run import graph_runner
from toolkit.graph.scheme_cpu import watched
from toolkit.onnxfile import serialize
from toolkit.recipe import Calibration, Precision
from toolkit.reference.check import agreement
from toolkit.types import Array

INT8 = Precision(int8=True)


def optimized(graph: ir.Model, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime makes of a graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(serialize(graph), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.fixture(scope="module")
def quantized(graph: ir.Model, observed: object) -> ir.Model:
    return quantize(graph, observed, INT8, Calibration())  # type: ignore[arg-type]


def test_onnx_runtime_fuses_every_layer(quantized: ir.Model, tmp_path: Path) -> None:
    found = optimized(quantized, tmp_path)
    assert found["QLinearConv"] == 20
    assert found["QLinearAdd"] == 8
    assert found["QLinearGlobalAveragePool"] == 1
    assert found["QGemm"] == 1
    assert found["QuantizeLinear"] == 1  # the input
    assert not {"Conv", "Relu", "Gemm", "GlobalAveragePool", "DequantizeLinear"} & set(found)
    assert found["Add"] == 1  # the classifier's bias


def test_it_answers_nearly_as_fp32_does(graph: ir.Model, quantized: ir.Model, batch: Array) -> None:
    found = agreement(graph_runner(graph)(batch), graph_runner(quantized)(batch))
    assert found.cosine > 0.99
    assert found.top1 >= 0.95


def test_what_is_kept_stays_in_floating_point(graph: ir.Model, observed: object) -> None:
    kept = quantize(graph, observed, Precision(int8=True, keep=("fc", "layer1.*")), Calibration())  # type: ignore[arg-type]
    weights = {node.name: node.inputs[1].producer() for node in kept.graph if node.op_type in ("Conv", "Gemm")}  # type: ignore[union-attr]
    left = {name for name, producer in weights.items() if producer is None}
    assert left == {"fc", *(f"layer1.{block}.conv{n}" for block in (0, 1) for n in (1, 2))}
    assert {"layer2.0.conv1", "layer4.1.add"} <= set(quantized_layers(kept))


def test_a_layer_that_is_not_there_cannot_be_kept(graph: ir.Model, observed: object) -> None:
    with pytest.raises(GraphError, match=r"precision\.keep.*'layer9'.*conv1"):
        quantize(graph, observed, Precision(int8=True, keep=("layer9",)), Calibration())  # type: ignore[arg-type]


def test_to_keep_everything_is_no_quantization(graph: ir.Model, observed: object) -> None:
    with pytest.raises(CalibrationError, match="nothing is left to quantize"):
        quantize(graph, observed, Precision(int8=True, keep=("*",)), Calibration())  # type: ignore[arg-type]


def test_calibration_watches_no_more_than_is_quantized(graph: ir.Model, quantized: ir.Model) -> None:
    pairs = [node for node in quantized.graph if node.op_type == "QuantizeLinear"]
    sources = {node.inputs[0].name for node in pairs if node.inputs[0] is not None}
    assert set(watched(graph)) <= sources
    assert sources - set(watched(graph)) <= {"reshape", "flatten"}  # it moves values only, and shares their scale


def test_weights_are_symmetric_a_scale_a_channel(graph: ir.Model, quantized: ir.Model) -> None:
    for node in quantized.graph:
        if node.op_type != "DequantizeLinear" or node.inputs[0].producer() is not None:  # type: ignore[union-attr]
            continue
        values, scale, zero = (constant(value) for value in node.inputs)
        assert values is not None
        assert scale is not None
        assert zero is not None
        assert values.dtype == np.int8
        assert len(scale) == len(values)
        assert not zero.any()
        name = (node.inputs[0].name or "").removesuffix(".quantized")  # type: ignore[union-attr]
        weight = constant(graph.graph.initializers[name])
        assert weight is not None
        shown = values * scale.reshape(-1, *[1] * (values.ndim - 1))
        assert np.abs(shown - weight).max() <= scale.max() / 2 * 1.001


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-3.0, 5.0), (-1e-3, 2.0), (0.5, 2.0), (-2.0, -1.0), (0.0, 0.0)])
def test_scales_hold_the_range_and_zero(low: float, high: float) -> None:
    scale, zero = activation_scale(low, high, symmetric=False)
    assert zero.dtype == np.uint8
    ends = (np.array([0, 255]) - int(zero)) * scale
    assert ends[0] <= min(low, 0) + scale / 2
    assert ends[1] >= max(high, 0) - scale / 2
    scale, zero = activation_scale(low, high, symmetric=True)
    assert (zero.dtype, int(zero)) == (np.dtype(np.int8), 0)
    assert 127 * scale >= max(-low, high) * (1 - 1e-9)


def test_the_input_graph_is_left_alone(graph: ir.Model, observed: object) -> None:
    before = serialize(graph)
    quantize(graph, observed, INT8, Calibration())  # type: ignore[arg-type]
    assert serialize(graph) == before
