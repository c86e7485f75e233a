"""Tensors: how far two graphs' tensors of one name differ, on the same images, in one pass over both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolkit.graph.edit import constant
from toolkit.graph.rounding import as_rounded, holds_half
from toolkit.types import Array, Float
from toolkit.why.analysis import decibels
from toolkit.why.blocks import PLUMBING
from toolkit.why.probe import channel_axis, live
from toolkit.why.weave import Weaver

Sums = NDArray[np.float64]
ROUNDS = 10  # of fitting factors to a weight
SKIPPED = (*PLUMBING, "QuantizeLinear", "DequantizeLinear", "Shape", "Gather", "Constant", "Concat")


class Ratios(NamedTuple):
    """B against A in dB: as they are, and with the best scale and offset for each channel of B. None: no difference."""

    plain: float | None
    scaled: float | None


def tensors(a: ir.Model, b: ir.Model, images: Iterable[Float]) -> dict[str, Ratios]:
    """Tensor -> ratios, for each float tensor that a node of both graphs computes, the logits included, in A's order."""
    model, names = _woven(a, b)
    if not names:
        return {}
    session = live(model)
    outputs = [value.name or "" for value in model.graph.outputs]
    totals: list[Sums] | None = None
    count = 0
    for image in images:
        rows = [np.asarray(row, np.float64) for row in session.run(outputs, {"input": image})]
        totals = rows if totals is None else [old + new for old, new in zip(totals, rows, strict=True)]
        count += 1
    if totals is None:
        return {}
    found = {}
    for index, (name, positions) in enumerate(names.items()):
        aa, bb, ab, a1, b1, dd = totals[6 * index : 6 * index + 6]
        found[name] = Ratios(
            decibels(float(aa.sum()), float(dd.sum())),
            decibels(float(aa.sum()), _residual(aa, bb, ab, a1, b1, count * positions)) if dd.sum() > 0 else None,
        )
    return found


def ratios(a: Array, b: Array, axis: int) -> Ratios:
    """The same of two weights, whose output channels lie along `axis`: `scaled` with the best factor for each output channel and
    each input channel of B, as equalization gives them (alternating least squares)."""
    one, two = (_rows(array, axis) for array in (a, b))
    signal, noise = float((one**2).sum()), float(((one - two) ** 2).sum())
    if noise == 0:
        return Ratios(None, None)
    scaled = two.copy()
    for _ in range(ROUNDS):
        for axes in ((1, 2), (0, 2)):
            scaled *= (one * scaled).sum(axes, keepdims=True) / np.maximum((scaled**2).sum(axes, keepdims=True), 1e-300)
    return Ratios(decibels(signal, noise), decibels(signal, float(((one - scaled) ** 2).sum())))


def _rows(array: Array, axis: int) -> Sums:
    """[outputs, inputs, taps], float64."""
    moved = np.moveaxis(array.astype(np.float64), axis, 0)
    return moved.reshape(moved.shape[0], moved.shape[1] if moved.ndim > 1 else 1, -1)


def _residual(aa: Sums, bb: Sums, ab: Sums, a1: Sums, b1: Sums, count: int) -> float:
    """What is left of A after the best line through B, channel by channel (least squares)."""
    va, vb, cov = aa - a1**2 / count, bb - b1**2 / count, ab - a1 * b1 / count
    with np.errstate(divide="ignore", invalid="ignore"):
        explained = np.where(vb > 0, cov**2 / vb, 0.0)
    return float(np.maximum(va - explained, 0.0).sum())


def _woven(a: ir.Model, b: ir.Model) -> tuple[ir.Model, dict[str, int]]:
    """Both graphs in one, with six sums a channel of each common tensor; and the positions in a channel of each."""
    weaver = Weaver()
    source = a.graph.inputs[0]
    entry_shape = [1, *(size if isinstance(size, int) else "?" for size in list(source.shape or [])[1:])]
    entry = weaver.input("input", entry_shape, source.dtype)
    copies = []
    for model in (as_rounded(graph) if holds_half(graph) else graph for graph in (a, b)):
        values = {model.graph.inputs[0]: entry}
        weaver.copy(model.graph, values)
        copies.append({old.name: (old, new) for old, new in values.items() if old.name and _is_result(old, model)})
    names: dict[str, int] = {}
    outputs: list[ir.Value] = []
    for name, (old, one) in copies[0].items():
        shape = old.shape
        if name not in copies[1] or shape is None or len(shape) < 2 or shape[1:] != (copies[1][name][0].shape or ())[1:]:
            continue
        sizes = [size for size in shape[1:] if isinstance(size, int)]
        if len(sizes) < len(shape) - 1:
            continue
        names[name or ""] = int(np.prod(sizes)) // sizes[channel_axis(len(shape)) - 1]
        outputs += _sums(weaver, one, copies[1][name][1], len(shape))
    return weaver.model([entry], outputs, max(a.opset_imports[""], b.opset_imports[""])), names


def _is_result(value: ir.Value, model: ir.Model) -> bool:
    node = value.producer()
    if node is not None and node.op_type == "Cast":  # of a rounded result
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
        node = node.inputs[0].producer() if node is not None and node.op_type == "Cast" and node.inputs[0] is not None else node
    if node is None or value.dtype != ir.DataType.FLOAT or constant(value) is not None:
        return False
    return value in model.graph.outputs or node.op_type not in SKIPPED


def _sums(weaver: Weaver, a: ir.Value, b: ir.Value, rank: int) -> list[ir.Value]:
    axes = weaver.constant(np.array([axis for axis in range(rank) if axis != channel_axis(rank)], np.int64))
    gap = weaver.op("Sub", [a, b])
    terms = [(a, a), (b, b), (a, b), (a, None), (b, None), (gap, gap)]
    products = [one if other is None else weaver.op("Mul", [one, other]) for one, other in terms]
    return [weaver.op("ReduceSum", [product, axes], keepdims=0) for product in products]
