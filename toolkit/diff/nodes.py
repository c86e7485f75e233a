"""Nodes: what two graphs' layers of one name hold: precision, scale, weight."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir

from toolkit.diff.result import Difference, LayerDiff
from toolkit.diff.sides import Side
from toolkit.diff.tensors import Ratios, ratios
from toolkit.graph.edit import constant, output_axis
from toolkit.graph.lint import through_casts
from toolkit.recipe.paths import with_paths
from toolkit.types import Array

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
NOTHING = ("QuantizeLinear", "DequantizeLinear", "Cast", "Constant", "Shape")  # operators that compute nothing of their own
FLOATS = {ir.DataType.FLOAT: "fp32", ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}


def layers(a: ir.Model, b: ir.Model, found: Mapping[str, Ratios]) -> tuple[LayerDiff, ...]:
    """The layers of both graphs, by name, in A's order; `found` are the ratios of their results."""
    others = {node.name: node for node in b.graph if node.name}
    pairs = [(node, others.get(node.name)) for node in a.graph if node.name]
    return tuple(
        _layer(node, other, found)
        for node, other in pairs
        if other is not None and node.op_type == other.op_type and precision(node) and precision(other)
    )


def changes(a: Side, b: Side) -> tuple[Difference, ...]:
    """Keys of the recipes, and of the engines' libraries and settings, with different values."""
    one, two = ({**_flat(_recipe(side)), **_flat(_engine(side))} for side in (a, b))
    if not one or not two:
        return ()
    keys = sorted({*one, *two})
    return tuple(Difference(key=key, a=one.get(key, ""), b=two.get(key, "")) for key in keys if one.get(key) != two.get(key))


def precision(node: ir.Node) -> str:
    """int8 where a layer reads nothing but pairs, else fp32, fp16 or bf16; empty for what computes nothing."""
    kind = FLOATS.get(node.outputs[0].dtype) if node.outputs and node.outputs[0].dtype is not None else None
    if kind is None or node.op_type in NOTHING:
        return ""
    operands = node.inputs[:2] if node.op_type in LAYERS else node.inputs
    fed = [_dequantize(value) is not None for value in operands if value is not None]
    return "int8" if fed and all(fed) else kind


def _layer(a: ir.Node, b: ir.Node, found: Mapping[str, Ratios]) -> LayerDiff:
    result = found.get(a.outputs[0].name or "", Ratios(None, None))
    one, two = _weight(a), _weight(b)
    weights = Ratios(None, None)
    if one is not None and two is not None and one.shape == two.shape:
        weights = ratios(one, two, output_axis(a) % one.ndim)
    return LayerDiff(
        name=a.name or "",
        kind=a.op_type,
        precision=(precision(a), precision(b)),
        scales=(_scale(a), _scale(b)),
        weights=weights.plain,
        scaled_weights=weights.scaled,
        snr=result.plain,
        scaled=result.scaled,
    )


def _dequantize(value: ir.Value | None) -> ir.Node | None:
    source = through_casts(value)
    producer = source.producer() if source is not None else None
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _scale(node: ir.Node) -> float | None:
    """The scale of what the layer reads first; None where that has no pair, or one a channel."""
    pair = _dequantize(node.inputs[0]) if node.inputs else None
    scale = constant(pair.inputs[1]) if pair is not None else None
    return float(scale.ravel()[0]) if scale is not None and scale.size == 1 else None


def _weight(node: ir.Node) -> Array | None:
    """The weight that a layer multiplies with, in float: of an INT8 layer, dequantized."""
    if node.op_type not in LAYERS or len(node.inputs) < 2:
        return None
    pair = _dequantize(node.inputs[1])
    if pair is None:
        array = constant(through_casts(node.inputs[1]))
        return None if array is None else array.astype(np.float32)
    values, scale = constant(pair.inputs[0]), constant(pair.inputs[1])
    zero = constant(pair.inputs[2]) if len(pair.inputs) > 2 else None
    if values is None or scale is None:
        return None
    axis = pair.attributes["axis"].as_int() if "axis" in pair.attributes else 1
    shape = [-1 if at == axis % values.ndim and scale.size > 1 else 1 for at in range(values.ndim)]
    offset = 0.0 if zero is None else zero.astype(np.float32).reshape(shape)
    return np.asarray((values.astype(np.float32) - offset) * scale.astype(np.float32).reshape(shape))


def _recipe(side: Side) -> dict[str, Any]:
    """Its values; two ways to one file, by `..` or a link, are one path."""
    found: dict[str, Any] = {} if side.recipe is None else with_paths(msgspec.to_builtins(side.recipe), os.path.realpath)
    return {key: value for key, value in found.items() if key not in ("name", "notes")}


def _engine(side: Side) -> dict[str, Any]:
    return {} if side.manifest is None else {"engine": {"versions": side.manifest.versions, "settings": side.manifest.settings}}


def _flat(table: Mapping[str, Any], where: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in table.items():
        path = f"{where}.{key}" if where else key
        found |= _flat(value, path) if isinstance(value, dict) else {path: "" if value is None else str(value)}
    return found
