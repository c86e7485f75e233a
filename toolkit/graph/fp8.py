"""FP8: float8e4m3fn in place of int8 in the Q/DQ pairs of scheme `tensorrt`; a GPU from sm89 on computes convolutions in it.

E4M3 has 3 bits of mantissa and steps that grow with the value: 448 is the largest finite one, 2^-6 the smallest normal, 2^-9 the
smallest of all. So a value keeps about 1 part in 16 wherever it lies over 15 binades, and little is won by clipping: a scale
maps the largest magnitude that calibration saw to 448, whatever `calibration.method` says.

A weight has one scale: with a scale a channel TensorRT-RTX 1.7 makes each convolution write FP32, with one it writes FP16. Layers
that read the image stay out: with 1 or 3 channels TensorRT-RTX computes them in half precision in any case, and the pair on the
image costs more accuracy than all others together.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from toolkit.graph.edges import origin
from toolkit.graph.edit import weight_of
from toolkit.graph.pixels import PREFIX
from toolkit.types import Array, Float

FP8: np.dtype[np.generic] = np.dtype(ml_dtypes.float8_e4m3fn)
LARGEST = 448.0
FIRST_SM = 89
TINY = float(np.finfo(np.float32).tiny)
OPSET, IR_VERSION = 19, 9  # the first in which QuantizeLinear takes float8
# Optimizers of ONNX Runtime. Those of 1.32: the first drops the Relu before a QuantizeLinear whose zero point is a float8 0; the
# second rounds a layer's bias to int32 steps of the product of its scales: float8 holds values far below such a step. That of
# 1.30 and before: it makes a Gemm a QGemm, which has no float8.
BREAKS_FP8 = ("ReluQuantRewrite", "WeightBiasQuantization", "QDQSelectorActionTransformer")


def fp8_scale(low: float, high: float) -> float:
    """The scale of a tensor with values in [low, high]: real = scale * q, |q| <= 448. A tensor of zeros has scale 1."""
    scale = max(-low, high) / LARGEST
    return scale if scale >= TINY else 1.0


def fp8_weight(array: Array) -> tuple[Array, Float]:
    """A float weight -> float8e4m3fn of the same shape, rounded to nearest even, and its one float32 scale []."""
    largest = float(np.abs(array).max(initial=0.0))
    scale = np.float32(fp8_scale(-largest, largest))
    scaled = np.clip(array.astype(np.float32) / scale, -LARGEST, LARGEST)  # beyond 448 the cast would give NaN
    return scaled.astype(FP8), np.array(scale, np.float32)


def first_layers(model: ir.Model) -> tuple[str, ...]:
    """The layers that read the image itself, be it through operators that only move values, or its preprocessing."""
    inputs = set(model.graph.inputs)
    for node in model.graph:
        if (node.name or "").startswith(f"{PREFIX}."):
            inputs.update(node.outputs)
    layers = [node for node in model.graph if weight_of(node) is not None and node.inputs[0] is not None]
    return tuple(node.name or "" for node in layers if node.inputs[0] is not None and origin(node.inputs[0]) in inputs)


def holds_fp8(model: ir.Model) -> bool:
    """Whether the graph has a float8 tensor."""
    values = [*model.graph.initializers.values(), *(output for node in model.graph for output in node.outputs)]
    return any(value.dtype == ir.DataType.FLOAT8E4M3FN for value in values)


def caveat(model: ir.Model) -> tuple[str, ...]:
    """A note for who runs this graph's file without the toolkit."""
    names = ", ".join(BREAKS_FP8)
    what = f"WARNING: ONNX Runtime computes FP8 wrongly by default: give its session disabled_optimizers, {names}"
    return (what,) if holds_fp8(model) else ()


def breaking(model: ir.Model) -> tuple[str, ...]:
    """The optimizers that ONNX Runtime has to leave out for this graph."""
    return BREAKS_FP8 if holds_fp8(model) else ()


def admit_fp8(model: ir.Model) -> None:
    """Raise the graph's opset and IR version to the first that know float8; the operators in between only took on more types."""
    model.opset_imports[""] = max(OPSET, model.opset_imports.get("", OPSET))
    model.ir_version = max(IR_VERSION, model.ir_version)
