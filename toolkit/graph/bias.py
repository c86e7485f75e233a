"""Bias correction: the shift that rounding the weights gives each output channel, on average over images, goes into the bias.

A layer's output moves by (W' - W) * x, whose mean over images is (W' - W) * mean(x), as the layer is linear (Nagel et al., 2019,
arXiv:1906.04721, section 4.2, where mean(x) comes from BatchNorm; here it is the mean image, so that padding counts as it does).
Each layer is judged by its FP32 input (`rounded.py`): the corrections do not depend on one another.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx_ir as ir

from toolkit.graph.channels import Real
from toolkit.graph.edit import attribute, constant, initializer, output_axis
from toolkit.types import Array


def mean_output(layer: ir.Node, weight: Array, mean: Real) -> Real:
    """What `weight` in the place of the layer's own makes of the mean input, averaged over positions: float64 [outputs]."""
    if layer.op_type != "Conv":
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


def shift_bias(node: ir.Node, shift: Real) -> None:
    """Add `shift` [outputs] to the bias of a Conv or Gemm, which a Conv without one is given; else nothing is done."""
    assert node.graph is not None
    old = node.inputs[2] if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2 else None
    if old is None and node.op_type == "Conv":
        node.resize_inputs(3)
        node.replace_input_with(2, initializer(node.graph, f"{node.name}.bias", shift.astype(np.float32)))
    bias = constant(old)
    if old is None or bias is None or bias.size != shift.size:
        return
    new = (bias + shift.reshape(bias.shape)).astype(np.float32)
    if old.is_initializer() and len(old.uses()) == 1:
        old.const_value = ir.tensor(new, name=old.name)
    else:
        node.replace_input_with(2, initializer(node.graph, old.name or f"{node.name}.bias", new))
