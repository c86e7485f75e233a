"""Lint: are the Q/DQ pairs where the backend fuses them? Each finding names the node, what it costs, and the fix.

Rules of both schemes:
- `per-tensor-weights`, `weight-axis`: a weight has one scale for all output channels, or its scales lie along another axis.
- `half-quantized`: of a layer's input and weight only one comes from a DequantizeLinear, so it computes in floating point.
- `double-quantize`: a tensor is dequantized and quantized again at once, or two QuantizeLinear read it.
- `split-fusion`: a pair stands between a layer and its Relu (tensorrt: or on both operands of a residual sum).
- `float-add`: a residual sum beside an INT8 convolution has operands that are not quantized as the scheme wants.

Scheme `tensorrt` alone: `asymmetric` (not int8 with zero point 0), `quantized-bias`, `half-scale` (a float16 scale, which
TensorRT converts with a warning).
Scheme `cpu` alone: `float-result` (an INT8 convolution without a pair behind it stays unfused).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import attribute, constant, matches, output_axis, sole_consumer
from toolkit.graph.fp8 import FP8
from toolkit.graph.qdq import Scheme
from toolkit.types import Finding

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def lint(model: ir.Model, scheme: Scheme, keep: Collection[str] = ()) -> tuple[Finding, ...]:
    """All findings, in graph order; none for a graph without Q/DQ. Nodes that `keep` names are in floating point by intent."""
    found: list[Finding] = []
    for node in model.graph:
        if node.domain or matches(node.name, keep):
            continue
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            found += _pair(node, scheme)
        elif node.op_type in LAYERS:
            found += _layer(node, scheme)
        elif node.op_type == "Add":
            found += _sum(node, scheme)
    return tuple(found)


def finding_lines(findings: Sequence[Finding]) -> tuple[str, ...]:
    """A line for each rule and reason, with a count: a deep network breaks one rule at every block."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for found in findings:
        groups.setdefault((found.rule, re.sub(r"'[^']*'|\d+", "", found.what)), []).append(found)
    return tuple(_line(same) for same in groups.values())


def _line(same: Sequence[Finding]) -> str:
    first = same[0]
    if len(same) == 1:
        return str(first)
    names = ", ".join(found.node for found in same[:3]) + (f" and {len(same) - 3} more" if len(same) > 3 else "")
    alike = len({(found.what, found.fix) for found in same}) == 1
    rest = "" if alike else " (of the first; the others alike: toolkit inspect ENGINE)"
    return f"{first.rule}: {len(same)} nodes ({names}): {first.what}. {first.fix}{rest}"


def through_casts(value: ir.Value | None) -> ir.Value | None:
    """The value before any Casts: an FP16 graph has them around each pair."""
    while value is not None and (producer := value.producer()) is not None and producer.op_type == "Cast":
        value = producer.inputs[0]
    return value


def _dequantize(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that `value` comes from."""
    source = through_casts(value)
    producer = source.producer() if source is not None else None
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes that read `value`, be it through Casts."""
    for node in value.consumers():
        if node.op_type == "Cast":
            yield from _readers(node.outputs[0])
        else:
            yield node


def _quantizer(dequantize: ir.Node) -> ir.Node | None:
    """The QuantizeLinear of the pair; None where the DequantizeLinear reads a constant."""
    value = dequantize.inputs[0]
    return value.producer() if value is not None else None


def _finding(rule: str, node: ir.Node, what: str, fix: str) -> Finding:
    return Finding(rule=rule, node=node.name or f"(unnamed {node.op_type})", what=what, fix=fix)


def _pair(node: ir.Node, scheme: Scheme) -> Iterator[Finding]:
    if scheme == "tensorrt":
        yield from _parameters(node)
    if node.op_type == "DequantizeLinear":
        return
    if _dequantize(node.inputs[0]) is not None:
        yield _finding("double-quantize", node, "it quantizes what was dequantized just before", "Let both share one pair")
    source = through_casts(node.inputs[0])
    if source is None:
        return
    others = [reader for reader in _readers(source) if reader.op_type == "QuantizeLinear"]
    if len(others) > 1 and others[0] is node:
        names = ", ".join(str(other.name) for other in others)
        what = f"'{source.name}' is quantized {len(others)} times ({names})"
        yield _finding("double-quantize", node, what, "Let all readers share one pair")
    producer = source.producer()
    dequantizers = [reader for reader in _readers(node.outputs[0]) if reader.op_type == "DequantizeLinear"]
    behind = [reader.op_type for pair in dequantizers for reader in _readers(pair.outputs[0])]
    if producer is not None and producer.op_type in (*LAYERS, "Add") and "Relu" in behind:
        yield _finding(
            "split-fusion", node, f"the pair separates '{producer.name}' from its Relu", "Move the pair behind the Relu"
        )


def _parameters(node: ir.Node) -> Iterator[Finding]:
    scale, zero = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if zero is not None and zero.dtype == FP8:
        return
    if zero is None or zero.dtype != np.int8 or np.any(zero):
        kind = "absent, which means uint8" if zero is None else f"{zero.dtype} {zero.ravel()[np.argmax(np.abs(zero))]}"
        if zero is None or zero.dtype != np.int32:  # int32 is a bias; that has a rule of its own
            fix = "Quantize symmetrically: int8 with zero point 0"
            yield _finding("asymmetric", node, f"its zero point is {kind}", fix)
    if scale is not None and scale.dtype == np.float16:
        yield _finding("half-scale", node, "its scale is float16", "Keep scales in float32, with Casts around the pair")


def _layer(node: ir.Node, scheme: Scheme) -> Iterator[Finding]:
    data, weight = _dequantize(node.inputs[0]), _dequantize(node.inputs[1])
    plain_weight = constant(through_casts(node.inputs[1])) is not None
    int8_weight = weight is not None and _quantizer(weight) is None
    if (data is not None and plain_weight) or (data is None and int8_weight):
        missing = "weight" if data is not None else "input"
        what = f"its {missing} is not quantized, so it computes in floating point"
        yield _finding("half-quantized", node, what, f"Give its {missing} a pair")
    if weight is not None:
        yield from _weight_scales(node, weight)
    bias = _dequantize(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None and scheme == "tensorrt":
        what = f"'{bias.name}' dequantizes its bias, which TensorRT refuses"
        yield _finding("quantized-bias", node, what, "Leave the bias in floating point")
    in_int8 = node.op_type == "Conv" and data is not None and weight is not None
    if scheme == "cpu" and in_int8 and not _ends_quantized(node.outputs[0]):
        fix = "Put a pair behind it, or behind its Relu"
        yield _finding("float-result", node, "its result has no pair, so it stays unfused", fix)


def _weight_scales(node: ir.Node, weight: ir.Node) -> Iterator[Finding]:
    scale, values = constant(weight.inputs[1]), constant(weight.inputs[0])
    if scale is None or values is None or values.dtype == FP8:
        return  # FP8 has one scale a weight by choice
    axis = output_axis(node) % values.ndim
    channels = values.shape[axis]
    if scale.size == 1 and channels > 1:
        what = f"one scale serves its {channels} output channels"
        yield _finding("per-tensor-weights", node, what, "Give each output channel a scale")
    elif scale.size > 1 and attribute(weight, "axis", 1) % values.ndim != axis:
        what = "the scales of its weight do not lie along the output channels"
        yield _finding("weight-axis", node, what, f"Quantize along axis {axis}")


def _ends_quantized(value: ir.Value) -> bool:
    """Whether the value, or its Relu's result, is read by a QuantizeLinear and nothing else."""
    if value.is_graph_output():
        return True  # logits are never quantized
    readers = list(_readers(value))
    if len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
        return _ends_quantized(readers[0].outputs[0])
    return bool(readers) and all(reader.op_type == "QuantizeLinear" for reader in readers)


def _sum(node: ir.Node, scheme: Scheme) -> Iterator[Finding]:
    if any(constant(value) is not None for value in node.inputs):
        return
    pairs = [_dequantize(value) for value in node.inputs]
    convolutions = [producer for value in node.inputs if (producer := _int8_convolution(value)) is not None]
    if scheme == "cpu":
        if None in pairs and (convolutions or any(pairs)):
            what = "an operand has no pair, so the sum is in floating point"
            yield _finding("float-add", node, what, "Give both operands a pair")
        return
    if None not in pairs and convolutions:
        names = " or ".join(f"'{producer.name}'" for producer in convolutions)
        fix = f"Remove the pair from the block's last convolution ({names})"
        yield _finding("split-fusion", node, "both operands have pairs, so no convolution fuses with the sum", fix)
    if not any(pairs) and convolutions:
        what = "neither operand has a pair, so the sum reads its shortcut in floating point"
        yield _finding("float-add", node, what, "Give the shortcut a pair")


def _int8_convolution(value: ir.Value | None) -> ir.Node | None:
    """The INT8 convolution whose result `value` is and whose only reader is this way, through a pair or bare."""
    pair = _dequantize(value)
    quantizer = _quantizer(pair) if pair is not None else None
    source = through_casts(quantizer.inputs[0] if quantizer is not None else value)
    producer = source.producer() if source is not None else None
    if source is None or producer is None or producer.op_type != "Conv" or sole_consumer(source) is None:
        return None
    return producer if _dequantize(producer.inputs[0]) is not None and _dequantize(producer.inputs[1]) is not None else None
