"""Pixels: the graph takes uint8 [N, H, W, C] as a decoded, cropped picture holds them, and preprocesses them itself.

With values p of 0 to 255, an image is (p * scale - mean) / std; the order of its channels is the recipe's `color`. Three forms:

`plain`      Cast, Transpose, Gather, Mul, Sub, Div in float32: the same operations as `images.picture`, so the same bits. What
             a GPU gets, which runs them as one kernel, and FP16, where folded weights would be too small for float16.
`folded`     scale, std and channel order are multiplied into the first convolution's weights. Its zero padding stands for the
             mean picture, so the mean is subtracted before it; only without padding does it go into the bias. Exact but for
             rounding.
`quantized`  for scheme `cpu`: the convolution reads DequantizeLinear(p), so ONNX Runtime's INT8 kernel reads the pixels
             themselves. The zero point z lies in the middle of the channels' means: padding with it is padding with the mean
             picture. Where a channel's mean is further than half a level from z, a constant channel k beside the picture makes up
             for the rest: its weights are -sum_c W_c (mean_c - z) / (k - z), and zero padding leaves it out where it leaves out
             the picture. Without padding, or where z is near enough, what is left goes into the bias.

The first convolution must alone read the image (be it through a Transpose to NCHW), with constant weights and in one group;
`keep` names layers that stay out of INT8. Where it is otherwise, the form is `plain`.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import attribute, constant, finish, initializer, make, matches, sole_consumer
from toolkit.recipe import Preprocess
from toolkit.types import Array

Form = Literal["plain", "folded", "quantized"]
INPUT = "pixels"
PREFIX = "from_pixels"  # of the names of the nodes that stand before the network
TO_NCHW = (0, 3, 1, 2)
HALF_LEVEL = 0.5


class Stem(NamedTuple):
    """The convolution that alone reads the image, and the value that it reads."""

    conv: ir.Node
    image: ir.Value
    moved: bool  # whether a Transpose to NCHW stands before it

    @property
    def padded(self) -> bool:
        auto = attribute(self.conv, "auto_pad", "NOTSET")
        return auto.startswith("SAME") or (auto == "NOTSET" and any(attribute(self.conv, "pads", (0,))))


class Levels(NamedTuple):
    """An image is (p - offset) * factor, a value of each a channel in the order of the pixels."""

    offset: Array
    factor: Array


def take_pixels(model: ir.Model, how: Preprocess, form: Form = "plain", keep: Collection[str] = ()) -> ir.Model:
    """FP32 graph with an input float32 [N, *how.input_shape] -> the same with `pixels`, uint8 [N, H, W, C], RGB or gray.

    In form `plain` the tensor that was the input keeps its name.
    """
    model = model.clone()
    graph = model.graph
    image = graph.inputs[0]
    stem = None if form == "plain" or how.scale == 0 else _stem(image, how)
    if stem is not None and form == "quantized" and matches(stem.conv.name, keep):
        stem = None
    taken = {value.name for value in (image, *graph.initializers.values(), *(out for node in graph for out in node.outputs))}
    name = next(free for free in (INPUT, *(f"{INPUT}_{i}" for i in range(1, 99))) if free not in taken)
    pixels = ir.Value(name=name, shape=ir.Shape(["N", *how.pixel_shape]), type=ir.TensorType(ir.DataType.UINT8))
    graph.inputs[0] = pixels
    if stem is None:
        _normalize(graph, pixels, image, how, form)
    elif form == "folded":
        _fold(graph, pixels, stem, how)
    else:
        _dequantize(graph, pixels, stem, how)
    return finish(model)


def how_taken(model: ir.Model) -> str:
    """What a graph of `take_pixels` does with its pixels, in words for a note; empty where it takes none."""
    image = model.graph.inputs[0]
    if image.dtype != ir.DataType.UINT8:
        return ""
    own = [node for node in model.graph if (node.name or "").startswith(f"{PREFIX}.")]
    ops = {node.op_type for node in own}
    readers = [use.node for node in own for output in node.outputs for use in output.uses() if use.node not in own]
    layer = next((node.name for node in readers if node.op_type == "Conv"), "")
    shape = ", ".join(str(d) for d in image.shape or ())
    head = f"takes pixels, uint8 [{shape}]"
    if "DequantizeLinear" in ops:
        more = ", with a constant channel for the mean at its padding" if "Pad" in ops else ""
        return f"{head}: {layer} reads them in INT8, preprocessing is folded into it{more}"
    if "Mul" in ops:
        return f"{head}: preprocessing stands before the network, in float32"
    rest = "the mean is subtracted before it, as it pads with zeros" if "Sub" in ops else "mean included"
    return f"{head}: preprocessing is folded into {layer}; {rest}"


def levels(how: Preprocess) -> Levels:
    """Offset and factor float64 [C] by channel of the pixels: R, G, B or gray."""
    offset, factor = np.array(how.mean, np.float64) / how.scale, how.scale / np.array(how.std, np.float64)
    return Levels(offset[::-1], factor[::-1]) if how.color == "BGR" else Levels(offset, factor)


def _stem(image: ir.Value, how: Preprocess) -> Stem | None:
    value, moved, node = image, False, sole_consumer(image)
    if node is not None and node.op_type == "Transpose" and tuple(attribute(node, "perm", ())) == TO_NCHW:
        value, moved = node.outputs[0], True
        node = sole_consumer(value)
    if node is None or node.op_type != "Conv" or node.domain or node.inputs[0] is not value or moved != (how.layout == "NHWC"):
        return None
    weight, bias = constant(node.inputs[1]), node.inputs[2] if len(node.inputs) > 2 else None
    plain = weight is not None and weight.ndim == 4 and weight.dtype == np.float32 and attribute(node, "group", 1) == 1
    return Stem(node, value, moved) if plain and (bias is None or constant(bias) is not None) else None


def _normalize(graph: ir.Graph, pixels: ir.Value, image: ir.Value, how: Preprocess, form: Form) -> None:
    """Form `plain`. TensorRT takes uint8 only where a Cast reads it; elsewhere bytes are cheaper to move than floats."""
    chain = _Chain(graph, pixels)
    axis = 3 if how.layout == "NHWC" else 1
    if form == "plain":
        chain.add("Cast", to=int(ir.DataType.FLOAT))
    if axis == 1:
        chain.add("Transpose", perm=TO_NCHW)
    if how.color == "BGR":
        chain.add("Gather", np.array([2, 1, 0], np.int64), axis=axis)
    if form != "plain":
        chain.add("Cast", to=int(ir.DataType.FLOAT))
    chain.add("Mul", np.array(how.scale, np.float32))  # by 1 too: what calibration knows as the image is computed here
    shape = (1, -1, 1, 1) if axis == 1 else (-1,)
    for op, values, idle in (("Sub", how.mean, 0.0), ("Div", how.std, 1.0)):
        if any(value != idle for value in values):
            chain.add(op, np.array(values, np.float32).reshape(shape))
    chain.end(image, image.name or "")


def _fold(graph: ir.Graph, pixels: ir.Value, stem: Stem, how: Preprocess) -> None:
    offset, factor = levels(how)
    weight = _weight(stem, how) * factor[:, None, None]
    chain = _Chain(graph, pixels)
    chain.add("Transpose", perm=TO_NCHW)
    chain.add("Cast", to=int(ir.DataType.FLOAT))
    if stem.padded and offset.any():
        chain.add("Sub", offset.astype(np.float32).reshape(1, -1, 1, 1))
    elif offset.any():
        _shift(stem.conv, -np.einsum("ochw,c->o", weight, offset))
    _set_weight(stem.conv, weight)
    chain.end(stem.image)


def _dequantize(graph: ir.Graph, pixels: ir.Value, stem: Stem, how: Preprocess) -> None:
    offset, factor = levels(how)
    unit = float(np.abs(factor).mean())
    zero = int(np.clip(round(float((offset.max() + offset.min()) / 2)), 0, 255))
    weight, rest = _weight(stem, how) * (factor / unit)[:, None, None], offset - zero
    chain = _Chain(graph, pixels)
    chain.add("Transpose", perm=TO_NCHW)
    constant_channel = stem.padded and float(np.abs(rest).max()) > HALF_LEVEL
    if constant_channel:
        missing = -np.einsum("ochw,c->ohw", weight, rest)  # what one level of the constant channel is to be multiplied with
        step = _step(weight, missing, zero)
        weight = np.concatenate([weight, missing[:, None] / step], axis=1)
        chain.add("Pad", np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64), np.array(zero + step, np.uint8))
    elif rest.any():
        _shift(stem.conv, -unit * np.einsum("ochw,c->o", weight, rest))
    chain.add("DequantizeLinear", np.array(unit, np.float32), np.array(zero, np.uint8))
    _set_weight(stem.conv, weight)
    chain.end(stem.image)


def _step(weight: Array, missing: Array, zero: int) -> int:
    """How far the constant channel lies from the zero point: as near as leaves its weights no larger than the picture's, so that
    they neither widen a scale nor have their rounding multiplied; a level that uint8 has."""
    largest, wanted = np.abs(weight).max(axis=(1, 2, 3)), np.abs(missing).max(axis=(1, 2))
    ratio = np.divide(wanted, largest, out=np.zeros_like(wanted), where=largest > 0).max()
    step = max(1, math.ceil(float(ratio)))
    return min(step, 255 - zero) if zero <= 127 else -min(step, zero)


class _Chain:
    """Nodes one after the other from the pixels on, at the head of the graph."""

    def __init__(self, graph: ir.Graph, pixels: ir.Value) -> None:
        self._graph, self._value, self._nodes = graph, pixels, list[ir.Node]()

    def add(self, op: str, *constants: Array, **attributes: Any) -> None:
        name = f"{PREFIX}.{op.lower()}"
        operands = [initializer(self._graph, f"{name}.{index}", array) for index, array in enumerate(constants)]
        node = make(op, [self._value, *operands], name, **attributes)
        self._nodes.append(node)
        self._value = node.outputs[0]

    def end(self, stands_for: ir.Value, name: str | None = None) -> None:
        """Everything that read `stands_for` reads the last node's output, which may take its name."""
        self._graph.insert_before(self._graph[0], self._nodes)
        old = stands_for.producer()
        if name is not None:
            stands_for.name, self._value.name = f"{name}.replaced", name
        stands_for.replace_all_uses_with(self._value)
        if old is not None:  # the file's own Transpose
            self._graph.remove(old, safe=True)


def _weight(stem: Stem, how: Preprocess) -> Array:
    """float64 [outputs, C, h, w], its inputs in the order of the pixels."""
    weight = constant(stem.conv.inputs[1])
    assert weight is not None
    weight = weight.astype(np.float64)
    return weight[:, ::-1] if how.color == "BGR" else weight


def _set_weight(conv: ir.Node, weight: Array) -> None:
    old = conv.inputs[1]
    assert old is not None and conv.graph is not None
    conv.replace_input_with(1, initializer(conv.graph, f"{old.name}.of_pixels", weight.astype(np.float32)))


def _shift(conv: ir.Node, shift: Array) -> None:
    """Add `shift` [outputs] to the bias."""
    assert conv.graph is not None
    old = conv.inputs[2] if len(conv.inputs) > 2 else None
    bias = constant(old)
    total = (shift if bias is None else bias + shift).astype(np.float32)
    conv.resize_inputs(3)
    conv.replace_input_with(2, initializer(conv.graph, f"{conv.name}.bias.of_pixels", total))
