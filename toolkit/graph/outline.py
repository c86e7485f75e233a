"""Outline: the layers of a typed graph by their original names: what each reads, and in which precision it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from toolkit.graph.edges import MOVES
from toolkit.graph.edit import constant, sole_consumer
from toolkit.harness.layers import NetworkLayer

ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Gelu", "Elu", "Selu", "Mish")
HELPERS = (*MOVES, "Identity", "Dropout", "Cast", "Expand", "QuantizeLinear", "DequantizeLinear", "Constant")
PREFIXES = ("InsertedPrecisionFreeCast_",)  # what ONNX Runtime puts before a name
PRECISIONS = {ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}


def outline(graph: ir.Model) -> tuple[tuple[NetworkLayer, ...], dict[str, str]]:
    """The layers in order, and for each node's name the layer that it belongs to.

    A layer is a node that computes, with the activation that alone reads it. Q/DQ pairs, Casts and what only moves values lie
    between layers and are passed over.
    """
    made: dict[ir.Value, str] = {}  # tensor -> the layer that it is the result of
    owners: dict[str, str] = {}
    layers: dict[str, NetworkLayer] = {}
    for node in graph.graph:
        inputs = [value for value in node.inputs if value is not None and constant(value) is None]
        if not inputs:
            continue
        reads = tuple(dict.fromkeys(made[value] for value in inputs if value in made))
        if node.op_type in HELPERS:
            name = made.get(inputs[0], "")
        elif node.op_type in ACTIVATIONS and inputs[0] in made and sole_consumer(inputs[0]) is node:
            name = made[inputs[0]]
        else:
            name = node.name or node.outputs[0].name or f"{node.op_type} {len(layers)}"
            layers[name] = NetworkLayer(name=name, kind=node.op_type, precision=_precision(node), reads=reads)
        if name:
            made.update((output, name) for output in node.outputs)
            if node.name and node.op_type not in HELPERS:
                owners[node.name] = name
    return tuple(layers.values()), owners


def layer_of(profiled: str, owners: Mapping[str, str]) -> str:
    """The layer of a node that a profiler names: ONNX Runtime names what it fused after one of its nodes, and adds to it."""
    for prefix in PREFIXES:
        profiled = profiled.removeprefix(prefix)
    if profiled in owners:
        return owners[profiled]
    fitting = [known for known in owners if profiled.startswith(f"{known}_")]
    return owners[max(fitting, key=len)] if fitting else ""


def _precision(node: ir.Node) -> str:
    """By the numbers that it reads: those of a Q/DQ pair, or else its result's type."""
    pairs = [value.producer() for value in node.inputs if value is not None]
    codes = [pair.inputs[0].dtype for pair in pairs if pair is not None and pair.op_type == "DequantizeLinear" and pair.inputs[0]]
    if ir.DataType.FLOAT8E4M3FN in codes:
        return "fp8"
    if codes:
        return "int8"
    return PRECISIONS.get(_result(node), "fp32")


def _result(node: ir.Node) -> ir.DataType:
    kinds: Sequence[ir.DataType | None] = [output.dtype for output in node.outputs]
    return next((kind for kind in kinds if kind is not None), ir.DataType.FLOAT)
