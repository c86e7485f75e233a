"""Quantization: Q/DQ pairs on activations, INT8 weights behind a DequantizeLinear. One set of ranges serves every scheme.

A scheme says where the pairs go (`scheme_cpu.py`, `scheme_tensorrt.py`) and whether activations are symmetric; this file puts
them there. Weights are int8, symmetric, one scale an output channel. A bias stays float32: ONNX Runtime quantizes it while it
fuses, and TensorRT refuses it quantized.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np
import onnx_ir as ir

from toolkit.errors import CalibrationError
from toolkit.graph.bias import shift_bias
from toolkit.graph.edges import Edge, origin
from toolkit.graph.edit import (
    WEIGHTED,
    attribute,
    constant,
    finish,
    initializer,
    make,
    matches,
    output_axis,
    require_matches,
    sole_consumer,
    weight_of,
)
from toolkit.graph.fp8 import FP8, admit_fp8, first_layers, fp8_scale, fp8_weight
from toolkit.graph.rounded import Rounded
from toolkit.graph.scheme_cpu import cpu_edges, miscounts
from toolkit.graph.scheme_tensorrt import tensorrt_edges
from toolkit.graph.weights import Room, fits_16_bits, quantize_weight
from toolkit.recipe import Calibration, Method, Precision
from toolkit.types import Array, Target

Scheme = Literal["cpu", "tensorrt"]


class HasRanges(Protocol):
    """What quantization asks of Ranges."""

    def range(self, tensor: str, method: Method, percentile: float = 99.99, *, levels: int = 127) -> tuple[float, float]: ...


def quantize(
    model: ir.Model,
    ranges: HasRanges,
    precision: Precision,
    calibration: Calibration,
    *,
    scheme: Scheme = "cpu",
    room: Room = "full",
    rounded: Mapping[str, Rounded] | None = None,
) -> ir.Model:
    """FP32 graph -> the same graph with Q/DQ pairs placed as `scheme` says; layers in `precision.keep` stay as they are.

    `room` is what weights may use of int8; `pairs` keeps neighbors from overflowing 16-bit sums without VNNI (`weights.py`).
    `rounded` holds weights of layers that are rounded already, with that room; `precision.bias_correction` takes its shifts.
    Raises CalibrationError for a tensor that has no range, GraphError for a pattern in `keep` that fits no layer.
    """
    require_matches(model, precision.keep, "precision.keep")
    model = model.clone()
    symmetric = scheme == "tensorrt"
    if precision.fp8:
        return _quantize_fp8(model, ranges, precision)
    if not symmetric:
        _part_pools(model)
    edges = tensorrt_edges(model, precision.keep, precision.pools) if symmetric else cpu_edges(model, precision.keep)
    if not edges:
        raise CalibrationError("nothing is left to quantize", remedy="Shorten `precision.keep` or set `int8 = false`")
    sources = [origin(edge.value).name or "" for edge in edges]  # before any pair hides the way to them
    for edge, name in zip(edges, sources, strict=True):
        method = precision.methods.get(name, calibration.method)
        low, high = ranges.range(name, method, calibration.percentile, levels=127 if symmetric else 255)
        if edge.unit is not None:
            least, most = edge.unit.active(*ranges.range(name, "minmax"))
            low, high = max(low, least), min(high, most)
        _insert_pair(model.graph, edge, *activation_scale(low, high, symmetric))
    for node in list(model.graph):
        if weight_of(node) is not None and _reads_quantized(node) and not matches(node.name, precision.keep):
            _quantize_weight(node, precision, room, (rounded or {}).get(node.name or ""))
            if scheme == "cpu" and node.op_type == "Gemm":
                _split_bias(node)
    return finish(model)


def _quantize_fp8(model: ir.Model, ranges: HasRanges, precision: Precision) -> ir.Model:
    """Scheme `tensorrt` in float8e4m3fn (`fp8.py`); the layers that read the image stay out."""
    admit_fp8(model)
    keep = (*precision.keep, *first_layers(model))
    edges = tensorrt_edges(model, keep, precision.pools)
    if not edges:
        raise CalibrationError("nothing is left to quantize", remedy="Shorten `precision.keep` or set `fp8 = false`")
    names = [origin(edge.value).name or "" for edge in edges]
    for edge, name in zip(edges, names, strict=True):
        _insert_pair(model.graph, edge, fp8_scale(*ranges.range(name, "minmax")), np.array(0, FP8))
    for node in list(model.graph):
        if weight_of(node) is not None and _reads_quantized(node) and not matches(node.name, keep):
            array = constant(node.inputs[1])
            assert array is not None  # as `weight_of` has seen
            _replace_weight(node, *fp8_weight(array), np.array(0, FP8))
    return finish(model)


def _part_pools(model: ir.Model) -> None:
    """Keep ONNX Runtime from fusing a pool that its INT8 kernel averages wrongly (see `miscounts`): the larger of its result and
    the same again stands behind it, which no optimizer removes, whatever the shape (of one channel a product by 1 would be)."""
    for pool in [node for node in model.graph if miscounts(node)]:
        output = pool.outputs[0]
        same = make("Max", [output, output], f"{pool.name}.unfused", output=output.name)
        same.outputs[0].shape, same.outputs[0].type = output.shape, output.type
        output.name = f"{output.name}.pooled"
        model.graph.insert_after(pool, same)
        for node, index in [use for use in output.uses() if use.node is not same]:
            node.replace_input_with(index, same.outputs[0])


def activation_scale(low: float, high: float, symmetric: bool) -> tuple[float, Array]:
    """Scale and zero point of a tensor with values in [low, high]: real = scale * (q - zero).

    Symmetric: int8, scale = max(|low|, |high|) / 127, zero point 0. Otherwise uint8 over [min(low, 0), max(high, 0)], so that
    0 is a value exactly. A tensor that is 0 everywhere has scale 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        scale = max(-low, high) / 127
        return (scale if scale >= np.finfo(np.float32).tiny else 1.0), np.array(0, np.int8)
    scale = (high - low) / 255
    if scale < np.finfo(np.float32).tiny:
        return 1.0, np.array(0, np.uint8)
    return scale, np.array(round(-low / scale), np.uint8)


def _insert_pair(graph: ir.Graph, edge: Edge, scale: float, zero: Array) -> None:
    value, name = edge.value, edge.value.name or ""
    readers = [use for use in value.uses() if edge.readers is None or use.node in edge.readers]
    step = initializer(graph, f"{name}.scale", np.array(scale, np.float32))
    parameters = [step, initializer(graph, f"{name}.zero_point", zero)]
    quantize = make("QuantizeLinear", [value, *parameters], f"{name}.quantize", output=f"{name}.quantized")
    dequantize = make("DequantizeLinear", [quantize.outputs[0], *parameters], f"{name}.dequantize", output=f"{name}.dequantized")
    producer = value.producer()
    if producer is None:
        first = graph[0]
        graph.insert_before(first, [quantize, dequantize])
    else:
        graph.insert_after(producer, [quantize, dequantize])
    for node, index in readers:
        node.replace_input_with(index, dequantize.outputs[0])


def _reads_quantized(node: ir.Node) -> bool:
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def _split_bias(gemm: ir.Node) -> None:
    """ONNX Runtime fuses no Gemm with a float bias: Gemm(x, w, b) -> Gemm(x, w) + b, the sum under the old name."""
    bias = gemm.inputs[2] if len(gemm.inputs) > 2 else None
    if bias is None or attribute(gemm, "beta", 1.0) != 1.0:
        return
    output = gemm.outputs[0]
    reader = sole_consumer(output)
    if reader is not None and reader.op_type == "Relu":
        return
    total = make("Add", [output, bias], f"{gemm.name}.add_bias", output=output.name)
    total.outputs[0].shape, total.outputs[0].type = output.shape, output.type
    gemm.resize_inputs(2)
    output.name = f"{output.name}.without_bias"
    assert gemm.graph is not None
    gemm.graph.insert_after(gemm, total)
    for node, index in [use for use in output.uses() if use.node is not total]:
        node.replace_input_with(index, total.outputs[0])
    outputs = gemm.graph.outputs
    for index, value in enumerate(outputs):
        if value is output:
            outputs[index] = total.outputs[0]


def _quantize_weight(node: ir.Node, precision: Precision, room: Room, rounded: Rounded | None) -> None:
    array = constant(node.inputs[1])
    assert array is not None  # as `weight_of` has seen
    axis, least = output_axis(node) % array.ndim, _least_step(node)
    if rounded is not None and (rounded.step >= least).all():
        quantized, step = rounded.values, rounded.step
        if precision.bias_correction:
            shift_bias(node, rounded.shift)
    else:
        quantized, step = quantize_weight(array, axis, precision.weights, room, least=least)
    _replace_weight(node, quantized, step, np.zeros(step.shape, np.int8), axis=axis)


def _replace_weight(node: ir.Node, quantized: Array, step: Array, zero: Array, **axis: int) -> None:
    weight, graph = node.inputs[1], node.graph
    assert weight is not None and graph is not None
    name = weight.name or node.name or ""
    inputs = [
        initializer(graph, f"{name}.quantized", quantized),
        initializer(graph, f"{name}.scale", step),
        initializer(graph, f"{name}.zero_point", zero),
    ]
    dequantize = make("DequantizeLinear", inputs, f"{name}.dequantize", output=f"{name}.dequantized", **axis)
    graph.insert_before(node, dequantize)
    node.replace_input_with(1, dequantize.outputs[0])


def _least_step(node: ir.Node) -> Array | float:
    """The weight scale below which ONNX Runtime's int32 bias, in steps of input scale times weight scale, would overflow."""
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    dequantize = node.inputs[0].producer() if node.inputs[0] is not None else None
    step = constant(dequantize.inputs[1]) if dequantize is not None else None
    return 0.0 if bias is None or step is None else np.abs(bias.astype(np.float64)).ravel() / (step * 2.0**30)


def quantized_layers(model: ir.Model) -> tuple[str, ...]:
    """The names of the nodes that stand between a DequantizeLinear and the next QuantizeLinear: what a backend runs in INT8."""
    readers = [use.node for node in model.graph if node.op_type == "DequantizeLinear" for use in node.outputs[0].uses()]
    written = [
        node.inputs[0].producer() for node in model.graph if node.op_type == "QuantizeLinear" and node.inputs[0] is not None
    ]
    return tuple(dict.fromkeys(node.name for node in (*readers, *written) if node is not None and node.name))


def needs_vnni(model: ir.Model) -> bool:
    """Whether some INT8 layer with uint8 activations has weights whose 16-bit pair sums would saturate on a CPU without VNNI."""
    for node in model.graph:
        data = node.inputs[0].producer() if node.op_type in WEIGHTED and node.inputs[0] is not None else None
        weight = node.inputs[1].producer() if data is not None and node.inputs[1] is not None else None
        if data is None or weight is None or {data.op_type, weight.op_type} != {"DequantizeLinear"}:
            continue
        values = constant(weight.inputs[0])
        unsigned = data.inputs[0] is not None and data.inputs[0].dtype == ir.DataType.UINT8
        if (
            values is not None
            and values.dtype == np.int8
            and unsigned
            and not fits_16_bits(values, output_axis(node) % values.ndim)
        ):
            return True
    return False


def scheme_of(target: Target) -> Scheme:
    """Which Q/DQ placement the target's library fuses."""
    return "tensorrt" if target.is_nvidia else "cpu"
