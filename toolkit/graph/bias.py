"""Bias correction: the shift that rounding the weights gives each output channel, on average over images, goes into the bias.

A layer's output moves by (W' - W) * x, whose mean over images is (W' - W) * mean(x), as the layer is linear (Nagel et al., 2019,
arXiv:1906.04721, section 4.2, where mean(x) comes from BatchNorm; here it is the mean image, so that padding counts as it does).
Each layer is judged by its FP32 input: the corrections do not depend on one another.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np
import onnx_ir as ir

from toolkit.graph.channels import Real, measure, noise
from toolkit.graph.edit import attribute, constant, finish, initializer, output_axis, weight_of
from toolkit.types import Array, Float


def correct_bias(reference: ir.Model, quantized: ir.Model, images: Iterable[Float] | None = None) -> ir.Model:
    """A copy of `quantised` whose biases make up for the rounding of its weights; `reference` is the graph before `quantize`.

    `images`: float32 batches from the calibration set, of which the first 64 images count; without them, unit noise.
    Convolutions without padding of their own kind (auto_pad), and layers without a bias, stay as they are.
    """
    quantized = quantized.clone()
    layers = {node.name: node for node in reference.graph if _is_corrected(node)}
    pairs = [(node, layers[node.name]) for node in quantized.graph if node.name in layers and _is_rounded(node)]
    if not pairs:
        return quantized
    inputs = {old.name: _input(old) for _, old in pairs}
    seen = measure(reference, noise(reference) if images is None else images, sorted(set(inputs.values())))
    for new, old in pairs:
        error = _dequantized(new) - _weight(old)
        _shift_bias(new, -_mean_output(old, error, seen[inputs[old.name]].mean))
    return finish(quantized)


def _is_corrected(node: ir.Node) -> bool:
    if weight_of(node) is None or len(node.inputs) < 3 or constant(node.inputs[2]) is None:
        return False
    if node.op_type == "Conv":
        return attribute(node, "auto_pad", "NOTSET") == "NOTSET" and _weight(node).ndim == 4
    return node.op_type == "Gemm" and not attribute(node, "transA", 0) and attribute(node, "alpha", 1.0) == 1.0


def _is_rounded(node: ir.Node) -> bool:
    producer = node.inputs[1].producer() if len(node.inputs) > 1 and node.inputs[1] is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def _input(node: ir.Node) -> str:
    """The name of the tensor that a layer reads."""
    value = node.inputs[0]
    assert value is not None and value.name is not None
    return value.name


def _weight(node: ir.Node) -> Array:
    array = constant(node.inputs[1])
    assert array is not None  # as `weight_of` has seen
    return array


def _dequantized(node: ir.Node) -> Array:
    weight = node.inputs[1]
    dequantize = weight.producer() if weight is not None else None
    assert dequantize is not None
    quantized, step = constant(dequantize.inputs[0]), constant(dequantize.inputs[1])
    assert quantized is not None and step is not None
    shape = [1] * quantized.ndim
    shape[output_axis(node)] = -1
    return np.asarray(quantized * step.astype(np.float64).reshape(shape))


def _mean_output(layer: ir.Node, weight: Array, mean: Real) -> Real:
    """What `weight` in the place of the layer's own makes of the mean input, averaged over positions: float64 [outputs]."""
    if layer.op_type == "Gemm":
        return np.asarray((weight if output_axis(layer) == 0 else weight.T) @ mean.ravel())
    groups = int(attribute(layer, "group", 1))
    top, left, bottom, right = attribute(layer, "pads", (0, 0, 0, 0))
    down, along = attribute(layer, "strides", (1, 1))
    spread = attribute(layer, "dilations", (1, 1))
    padded = np.pad(mean, ((0, 0), (top, bottom), (left, right)))
    rows, columns = weight.shape[2:]
    height = padded.shape[1] - spread[0] * (rows - 1)
    width = padded.shape[2] - spread[1] * (columns - 1)
    seen = np.empty((len(mean), rows, columns))  # what each tap sees on average
    for i, j in product(range(rows), range(columns)):
        y, x = i * spread[0], j * spread[1]
        seen[:, i, j] = padded[:, y : y + height : down, x : x + width : along].mean(axis=(1, 2))
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    return np.asarray(np.einsum("goikl,gikl->go", by_group, seen.reshape(groups, -1, rows, columns))).ravel()


def _shift_bias(node: ir.Node, shift: Real) -> None:
    """Add `shift` [outputs] to the layer's bias, or to the Add that holds a Gemm's bias."""
    holder, index = (node, 2) if len(node.inputs) > 2 else (next(iter(node.outputs[0].uses())).node, 1)
    old = holder.inputs[index]
    bias = constant(old)
    assert old is not None and bias is not None and holder.graph is not None
    new = (bias + shift.reshape(bias.shape)).astype(np.float32)
    if old.is_initializer() and len(old.uses()) == 1:
        old.const_value = ir.tensor(new, name=old.name)
    else:
        holder.replace_input_with(index, initializer(holder.graph, old.name or f"{node.name}.bias", new))
